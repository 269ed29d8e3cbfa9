"""Generators and judges that answer from their prompts, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.generate.completion import Ask, Completion, Sampling
from polysafe.judge.verdict import Exchange, Label, Verdict

IDENTITY: dict[str, Any] = {
    "weights": "a" * 64,
    "tokenizer": "b" * 64,
    "template": "chat",
    "engine": "fake",
    "dtype": "float32",
    "sampling": Sampling().model_dump(),
}


class StoppedError(Exception):
    """The end of a run at a chosen point."""


def prompt_set(
    name: str = "trial",
    *,
    rows: int = 6,
    languages: Sequence[str] = ("en", "sw"),
    kind: Kind = "harmful",
    text: Callable[[int, str], str] = "placeholder {} in {}".format,
    overlaps: frozenset[str] = frozenset(),
) -> PromptSet:
    """A set of neutral texts with three categories."""
    prompts = tuple(
        Prompt(name, str(row), language, text(row, language), kind, f"category {row % 3}")
        for language in languages
        for row in range(rows)
    )
    return PromptSet(name, prompts, licence="CC0-1.0", overlaps=overlaps)


def answer_to(text: str) -> str:
    """What the fake model says by default."""
    return "answer " + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class FakeGenerator:
    """Answers in reverse order, and stops with an error after some answers if told to."""

    def __init__(
        self,
        answer: Callable[[str], str] = answer_to,
        *,
        stop_after: int | None = None,
        identity: Mapping[str, Any] | None = None,
        tokens: Callable[[str], str | None] = lambda text: hashlib.sha256(text.encode()).hexdigest(),
    ) -> None:
        self.identity = IDENTITY | dict(identity or {})
        self.asked: list[str] = []
        self._answer, self._stop_after, self._tokens = answer, stop_after, tokens

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        for done, ask in enumerate(reversed(asks)):
            if done == self._stop_after:
                raise StoppedError
            self.asked.append(ask.id)
            text = self._answer(ask.text)
            yield Completion(ask.id, text, "length" if "cut" in text else "stop", 3, self._tokens(ask.text))


class FakeJudge:
    """Finds a label's name in the answer; other answers are refusals."""

    name = "fake-judge"

    def __init__(
        self,
        *,
        stop_after: int | None = None,
        identity: Mapping[str, Any] | None = None,
        tells_refusals: bool = True,
    ) -> None:
        self.identity = {"kind": "fake", "model": "j"} | dict(identity or {})
        self.asked: list[str] = []
        self._stop_after, self._tells = stop_after, tells_refusals

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
        for done, exchange in enumerate(exchanges):
            if done == self._stop_after:
                raise StoppedError
            self.asked.append(exchange.prompt.id)
            yield self.verdict(exchange)

    def verdict(self, exchange: Exchange) -> Verdict:
        label = next((one for one in Label if f"<{one}>" in exchange.answer), Label.SAFE)
        refused = None if not self._tells or label is Label.UNPARSED else label is Label.SAFE
        detail = {"language": {"code": exchange.prompt.language, "confidence": 0.5}}
        return Verdict(exchange.prompt.id, label, refused, self.name, f"said {label}", detail)


class Apart(FakeJudge):
    """A judge whose model is elsewhere."""

    apart = True
