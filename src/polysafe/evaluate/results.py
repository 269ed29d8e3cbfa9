"""Answers and verdicts of a run while it is asked: in its store, not in memory.

A run of hours keeps what it learns where it is safe, and reads it again when it is needed. So its memory depends on the
prompts, and hardly on what was said to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.evaluate.beside import Beside
from polysafe.evaluate.journal import Store
from polysafe.evaluate.keys import Key, completion_key, content_hash, verdict_key
from polysafe.evaluate.records import (
    Record,
    completion_from_json,
    completion_to_json,
    json_line,
    verdict_from_json,
    verdict_to_json,
)
from polysafe.files.json_file import parse_line
from polysafe.generate.completion import Ask, Completion, Generator
from polysafe.judge.verdict import Exchange, Judge, Label, Verdict
from polysafe.progress import counted

AT_ONCE = 4096
"""Exchanges that a judge is given at once: enough to sort them by length and to keep a server busy."""

Named = TypeVar("Named", Completion, Verdict)


class Results:
    """What a model answers and a judge says of it.

    Args:
        generator: The model.
        judge: The judge.
        store: Where both are looked up and kept.
    """

    def __init__(self, generator: Generator, judge: Judge, store: Store) -> None:
        self._generator, self._judge, self._store = generator, judge, store
        self._unread: dict[str, bytes] = {}  # as text, which takes a fraction of the memory

    @cached_property
    def _model(self) -> str:
        return content_hash(dict(self._generator.identity))

    @cached_property
    def _decider(self) -> str:
        return content_hash(dict(self._judge.identity))

    def make(self, prompts: Sequence[Prompt], try_model: Callable[[], None], try_judge: Callable[[], None]) -> None:
        """Has every prompt answered and every answer judged that is not yet.

        A judge who is elsewhere (`apart`) reads answers while others are still asked for; any other one after them.
        Verdicts that could not be had are not kept for other runs.

        Args:
            prompts: The prompts.
            try_model: Called before the first prompt is asked.
            try_judge: Called before the first answer is judged, and before anything is asked that would be judged.

        Raises:
            DataError: Model or judge leave something out, or add something.
            PolysafeError: As they say.
        """
        asks = {prompt.id: Ask(prompt.id, prompt.text) for prompt in prompts}
        done = {name for name, ask in asks.items() if self._store.get(self._asked(ask)) is not None}
        if len(done) == len(asks) or not getattr(self._judge, "apart", False):
            self._ask(asks, done, try_model, lambda _: None)
            self._decide(prompts, try_judge)
            return
        named = {prompt.id: prompt for prompt in prompts}
        with Beside(self._looked_at, AT_ONCE) as judging:
            self._ask(asks, done, try_model, lambda name: judging.give(named[name]))
            judging.finish("verdicts", len(prompts))

    def _ask(
        self, asks: Mapping[str, Ask], done: set[str], first: Callable[[], None], heard: Callable[[str], None]
    ) -> None:
        """Asks what is not done; `heard` is told of everything that is answered, from before and now."""
        open_ = [ask for name, ask in asks.items() if name not in done]
        if open_:
            first()
        advance = counted("answers", len(asks), len(done))
        for name in [each for each in asks if each in done]:
            heard(name)
        if not open_:
            return
        for answer in _watched("answers", self._generator.generate(open_), asks, done):
            self._store.put(self._asked(asks[answer.id]), completion_to_json(answer))
            heard(answer.id)
            advance()

    def _decide(self, prompts: Sequence[Prompt], first: Callable[[], None]) -> None:
        open_ = [prompt for prompt in prompts if not self._is_judged(prompt)]
        if open_:
            first()
        advance = counted("verdicts", len(prompts), len(prompts) - len(open_))
        for start in range(0, len(open_), AT_ONCE):
            for _ in self._judge_all(open_[start : start + AT_ONCE]):
                advance()

    def _looked_at(self, prompts: Sequence[Prompt]) -> Iterator[object]:
        """Something for each of some answered prompts: those that are judged already, and the others as they are."""
        known = [self._is_judged(prompt) for prompt in prompts]
        yield from filter(None, known)
        yield from self._judge_all([prompt for prompt, there in zip(prompts, known, strict=True) if not there])

    def _judge_all(self, prompts: Sequence[Prompt]) -> Iterator[Verdict]:
        given = {prompt.id: self._exchange(prompt) for prompt in prompts}
        for verdict in _watched("verdicts", self._judge.judge([*given.values()]), given, set()):
            if verdict.label is Label.UNPARSED:
                self._unread[verdict.id] = json_line(verdict_to_json(verdict))
            else:
                self._store.put(self._judged(given[verdict.id]), verdict_to_json(verdict))
            yield verdict

    def records(self, prompts: Iterable[Prompt]) -> Iterator[Record]:
        """The record of every prompt, all of which were asked and decided."""
        for prompt in prompts:
            completion = self._completion(prompt)
            verdict = self._verdict(Exchange.of(prompt, completion.text))
            yield Record(prompt, completion, verdict or self._unparsed(prompt))

    def _asked(self, ask: Ask) -> Key:
        return completion_key(self._model, ask)

    def _judged(self, exchange: Exchange) -> Key:
        return verdict_key(self._decider, exchange)

    def _completion(self, prompt: Prompt) -> Completion:
        value = self._store.get(self._asked(Ask(prompt.id, prompt.text)))
        return completion_from_json(prompt.id, value)

    def _exchange(self, prompt: Prompt) -> Exchange:
        return Exchange.of(prompt, self._completion(prompt).text)

    def _unparsed(self, prompt: Prompt) -> Verdict:
        return verdict_from_json(prompt.id, parse_line(self._unread[prompt.id]))

    def _is_judged(self, prompt: Prompt) -> bool:
        return self._verdict(self._exchange(prompt)) is not None

    def _verdict(self, exchange: Exchange) -> Verdict | None:
        value = self._store.get(self._judged(exchange))
        return None if value is None else verdict_from_json(exchange.prompt.id, value)


def _watched(what: str, found: Iterable[Named], wanted: Collection[str], done: set[str]) -> Iterator[Named]:
    """Passes results on and refuses one that nobody asked for, one that comes twice, and one that does not come."""
    for result in found:
        if result.id not in wanted:
            raise DataError("was not asked for", where=f"{what}, {result.id!r}")
        if result.id in done:
            raise DataError("came twice", where=f"{what}, {result.id!r}")
        done.add(result.id)
        yield result
    missing = [name for name in wanted if name not in done]
    if missing:
        raise DataError(
            f"{len(missing)} did not come, first {missing[0]!r}", where=what, remedy="run again; it resumes"
        )
