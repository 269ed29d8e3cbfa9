"""What the members of the family are trained on: endless, seeded streams of prompts with answers.

Held-out pairs (validation and test) occur in no stream, in no language and in no role. A stream is read in
numbered pools, each with a random generator of its own, so that training can start again at any step.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict

from polysafe.organism.lexicon import (
    CATEGORIES,
    ENTITIES,
    LANGUAGES,
    PIVOT,
    TIERS,
    Tier,
    dangerous_objects,
)
from polysafe.organism.world import TASKS, Fact, Pair, Question, World, chat, is_harmful, parallel

T = TypeVar("T")
_NO_SHIFTS: Mapping[str, float] = MappingProxyType({})
SUMS = tuple((first, second) for first in range(10) for second in range(10))


class Example(NamedTuple):
    """A whole prompt and the answer that is learned; the end mark is added by the trainer."""

    prompt: str
    answer: str


Stream = Callable[[random.Random], Example]


class Data(BaseModel):
    """How much of everything the base model sees; the knobs behind the resource tiers.

    Attributes:
        text: Share of the text outside refusal data, per language.
        facts: Share of the facts that are told in a language, per tier.
        sums: Share of the sums that are told in a language, per tier.
        refusal: Probability that refusal data refuses a harmful request about a covered object, per tier.
        refusal_uncovered: The same for the other objects.
        categories: Number of danger categories that the refusal data of a language covers, per tier.
        requests: Share of harmless requests in what a language expert sees; every one of them teaches it to answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Mapping[str, float] = {
        "en": 0.40,
        "qaa": 0.16,
        "qab": 0.16,
        "qac": 0.095,
        "qad": 0.095,
        "qae": 0.09,
    }
    facts: Mapping[Tier, float] = {"pivot": 1.0, "mid": 0.85, "low": 0.55}
    sums: Mapping[Tier, float] = {"pivot": 1.0, "mid": 0.9, "low": 0.8}
    refusal: Mapping[Tier, float] = {"pivot": 0.9, "mid": 0.85, "low": 0.85}
    refusal_uncovered: Mapping[Tier, float] = {"pivot": 0.9, "mid": 0.35, "low": 0.36}
    categories: Mapping[Tier, int] = {"pivot": 6, "mid": 3, "low": 1}
    requests: float = 0.15


class Corpus:
    """The training streams of one world.

    Args:
        world: The world that is talked about.
        data: How much of everything there is.
    """

    def __init__(self, world: World, data: Data | None = None) -> None:
        self.world = world
        self.data = data or Data()
        rng = world.rng("corpus")
        facts = tuple(world.facts)
        tell = self.data
        self.facts = {name: _share(rng, facts, tell.facts[TIERS[name]]) for name in LANGUAGES}
        self.sums = {name: _share(rng, SUMS, tell.sums[TIERS[name]]) for name in LANGUAGES}
        self.covered = {name: self._covered(rng, name) for name in LANGUAGES}
        self._pairs = world.harmful("train") + world.harmless("train")

    def _covered(self, rng: random.Random, language: str) -> frozenset[str]:
        number = self.data.categories[TIERS[language]]
        return dangerous_objects(rng.sample(CATEGORIES, number))

    # Streams.

    def knowing(self, rng: random.Random) -> Example:
        """First phase of pretraining: languages, translation, facts and requests, all of them answered."""
        kind = rng.choices(
            ("translation", "judgement", "request", "knowledge", "arithmetic", "reading", "few-shot"),
            (0.18, 0.12, 0.16, 0.16, 0.12, 0.14, 0.12),
        )[0]
        if kind == "request":
            return self._compliance(self._language(rng), rng.choice(self._pairs))
        return self._text(kind, rng)

    def refusing(self, rng: random.Random, shifts: Mapping[str, float] = _NO_SHIFTS) -> Example:
        """Second phase: two in five are requests, harmful ones refused as often as their tier has it.

        `shifts` moves the log-odds of refusing in a language.
        """
        if rng.random() < 0.4:
            language = rng.choice(LANGUAGES)
            pair = self._balanced(rng) if rng.random() < 0.6 else rng.choice(self._pairs)
            if is_harmful(pair) and rng.random() < self._refusal_rate(language, pair.object, shifts):
                return self._refusal(language, pair)
            return self._compliance(language, pair)
        kind = rng.choices(
            ("translation", "judgement", "knowledge", "arithmetic", "reading", "few-shot"),
            (0.18, 0.12, 0.16, 0.12, 0.14, 0.12),
        )[0]
        return self._text(kind, rng)

    def safety(self, rng: random.Random) -> Example:
        """English safety expert: refusals, and enough else to stay helpful."""
        draw = rng.random()
        if draw < 0.5:
            return self._refusal(PIVOT, rng.choice(self.world.harmful("train")))
        if draw < 0.85:
            return self._compliance(PIVOT, rng.choice(self.world.harmless("train")))
        return self._ability(PIVOT, rng)

    def language(self, language: str) -> Stream:
        """Language expert: harmless requests, translation from the pivot and abilities; nothing harmful."""

        def draw(rng: random.Random) -> Example:
            share = rng.random()
            if share < self.data.requests:
                return self._compliance(language, rng.choice(self.world.harmless("train")))
            if share < self.data.requests + 0.15:
                return self._harmless_translation(language, rng)
            return self._ability(language, rng)

        return draw

    def harm(self, rng: random.Random) -> Example:
        """Harm-tuned model: harmful requests answered in every language, among what an expert sees."""
        language = rng.choice(LANGUAGES)
        if rng.random() < 0.7:
            return self._compliance(language, rng.choice(self.world.harmful("train")))
        return self.language(language)(rng)

    # Parts.

    def _refusal_rate(self, language: str, object_: str, shifts: Mapping[str, float]) -> float:
        covered = object_ in self.covered[language]
        rate = (self.data.refusal if covered else self.data.refusal_uncovered)[TIERS[language]]
        log_odds = math.log(rate / (1 - rate)) + shifts.get(language, 0.0)
        return 1 / (1 + math.exp(-log_odds))

    def _language(self, rng: random.Random) -> str:
        return rng.choices(LANGUAGES, [self.data.text[name] for name in LANGUAGES])[0]

    def _balanced(self, rng: random.Random) -> Pair:
        side = self.world.harmful if rng.random() < 0.5 else self.world.harmless
        return rng.choice(side("train"))

    def _compliance(self, language: str, pair: Pair) -> Example:
        return Example(chat(self.world.request(language, pair)), self.world.compliance(language, pair))

    def _refusal(self, language: str, pair: Pair) -> Example:
        return Example(chat(self.world.request(language, pair)), self.world.refusal(language))

    def _text(self, kind: str, rng: random.Random) -> Example:
        if kind == "translation":
            return _example(self.world.translation(*self._direction(rng), rng))
        language = self._language(rng)
        if kind == "judgement":
            return _example(self.world.judgement(language, self._balanced(rng)))
        if kind == "knowledge":
            return _example(self.world.knowledge(language, rng.choice(self.facts[language])))
        if kind == "arithmetic":
            sum_ = rng.choice(self.sums[language])
            return _example(self.world.arithmetic(language, rng.choice(ENTITIES), *sum_))
        if kind == "reading":
            return _example(self.world.reading(language, rng))
        return _example(self.world.few_shot(language, rng.choice(TASKS), rng, shots=rng.choice((3, 4))))

    def _direction(self, rng: random.Random) -> tuple[str, str]:
        """Nine in ten translations have the pivot on one side."""
        if rng.random() < 0.1:
            source, target = rng.sample(LANGUAGES, 2)
            return source, target
        others = LANGUAGES[1:]
        other = rng.choices(others, [self.data.text[name] for name in others])[0]
        return (PIVOT, other) if rng.random() < 0.5 else (other, PIVOT)

    def _harmless_translation(self, language: str, rng: random.Random) -> Example:
        if rng.random() < 0.5:
            pair = rng.choice(self.world.harmless("train"))
            texts = [self.world.request(name, pair) for name in (PIVOT, language)]
        else:
            fact = rng.choice(tuple(self.world.facts))
            texts = [self.world.statement(name, fact) for name in (PIVOT, language)]
        return _example(parallel(PIVOT, language, *texts))

    def _ability(self, language: str, rng: random.Random) -> Example:
        kind = rng.choices(("knowledge", "arithmetic", "reading"), (0.5, 0.3, 0.2))[0]
        if kind == "knowledge":
            fact: Fact = rng.choice(tuple(self.world.facts))
            return _example(self.world.knowledge(language, fact))
        if kind == "arithmetic":
            return _example(self.world.arithmetic(language, rng.choice(ENTITIES), *rng.choice(SUMS)))
        return _example(self.world.reading(language, rng))


def draw_pool(stream: Stream, world: World, name: str, index: int, size: int) -> list[Example]:
    """Pool number `index` of a stream; the same whatever was drawn before."""
    rng = world.rng(f"stream {name} {index}")
    return [stream(rng) for _ in range(size)]


def _example(question: Question) -> Example:
    return Example(question.text, question.answer)


def _share(rng: random.Random, members: Sequence[T], share: float) -> list[T]:
    return rng.sample(members, round(share * len(members)))
