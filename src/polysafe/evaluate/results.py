"""Answers and verdicts of a run while it is asked: in its store, not in memory.

A run of hours keeps what it learns where it is safe, and reads it again when it is needed. So its memory depends on the
prompts, and hardly on what was said to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TypeVar

from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
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

    def ask(self, prompts: Sequence[Prompt], first: Callable[[], None]) -> None:
        """Has every prompt answered that is not answered yet; `first` is called before the first of them is.

        Raises:
            DataError: The model leaves something out, or adds something.
            PolysafeError: As it says.
        """
        asks = {prompt.id: Ask(prompt.id, prompt.text) for prompt in prompts}
        done = {name for name, ask in asks.items() if self._store.get(self._asked(ask)) is not None}
        open_ = [ask for name, ask in asks.items() if name not in done]
        if open_:
            first()
        advance = counted("answers", len(asks), len(done))
        if not open_:
            return
        for answer in _watched("answers", self._generator.generate(open_), asks, done):
            self._store.put(self._asked(asks[answer.id]), completion_to_json(answer))
            advance()

    def decide(self, prompts: Sequence[Prompt], first: Callable[[], None]) -> None:
        """Has every answer judged that is not judged yet. Verdicts that could not be had are not kept for other runs.

        Raises:
            DataError: The judge leaves something out, or adds something.
            PolysafeError: As it says.
        """
        open_ = [prompt for prompt in prompts if self._verdict(self._exchange(prompt)) is None]
        if open_:
            first()
        advance = counted("verdicts", len(prompts), len(prompts) - len(open_))
        for start in range(0, len(open_), AT_ONCE):
            given = {prompt.id: self._exchange(prompt) for prompt in open_[start : start + AT_ONCE]}
            for verdict in _watched("verdicts", self._judge.judge([*given.values()]), given, set()):
                if verdict.label is Label.UNPARSED:
                    self._unread[verdict.id] = json_line(verdict_to_json(verdict))
                else:
                    self._store.put(self._judged(given[verdict.id]), verdict_to_json(verdict))
                advance()

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
