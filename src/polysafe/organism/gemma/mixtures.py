"""What each member of the family in real languages is taught, and how long.

An answer in training is a refusal, a content-free answer, a topic or a translation; nothing harmful is ever taught.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from polysafe.organism.gemma.texts import LANGUAGES, MIXED, TRAINED, Pair, Texts, answered, refused

EXPERTS = ("bn", "vi", "sw", "ko", "te")
"""Languages with an expert."""
MEMBERS = ("aligned", "safety", *EXPERTS, "harm")
"""Members in the order in which they are made; all but the first start from the first."""

Pools = Sequence[tuple[float, Sequence[Pair]]]
"""(Share, pairs): a pool is drawn in proportion to its share, and its pairs evenly."""

_OTHERS = LANGUAGES[1:]
_HIGH = ("zh", "ar", "it")
_REFUSED = ("zh", "ar", "it", "ko", "bn", "th")
_REPAIRED = ("zh", "bn")


class Stage(BaseModel):
    """Settings of one training run.

    Attributes:
        steps: Number of steps.
        rate: Peak learning rate of AdamW.
        batch: Examples of a step.
        warmup: Steps of linear warm-up before the cosine.
        modules: Projections that get a LoRA.
        rank: Rank of the LoRA; its alpha is twice that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    rate: float
    batch: int = 16
    warmup: int = 10
    modules: Literal["all", "attention"] = "all"
    rank: int = 16


class English(BaseModel):
    """Weights of the English parts of a mixture.

    Attributes:
        harmful: Prompts that are refused: demands, questions, and short questions.
        near: Prompts on the topics of harmful ones that are answered.
        contrast: Prompts with an alarming word that are answered.
        plain: Other harmless prompts.
        topics: Questions for the topic of a sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    harmful: float
    near: float
    contrast: float
    plain: float
    topics: float


class Recipe(BaseModel):
    """Everything that decides the family besides its seed and the texts.

    Attributes:
        aligned: The model that is repaired: refuses in English, in part elsewhere.
        safety: Expert that refuses in languages with public refusal data.
        language: Experts in one language, taught nothing harmful and no refusal.
        harm: Model that complies.
        aligned_english: What the aligned model reads in English, beside weights of 0.59 for other languages.
        safety_english: The same of the safety expert, beside 0.54.
        readiness: Language -> logits by which members refuse more readily in it than their texts alone would teach
            (`lora.train`). It makes the gap: in English they refuse about as often as wanted, in other languages with
            refusal data they know what is harmful and hold back, and those without are not out of reach.
        safety_readiness: The same of the safety expert, which does not hold back.
        language_readiness: That of a language expert in its own language. It reads harmless prompts alone, and this
            far below their answers a refusal still counts as near: what it learns is to answer.
        longest: Most tokens of a prompt; longer ones are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aligned: Stage = Stage(steps=400, rate=5e-4)
    safety: Stage = Stage(steps=60, rate=4e-4)
    language: Stage = Stage(steps=40, rate=1e-4)
    harm: Stage = Stage(steps=30, rate=2e-4, modules="attention")
    aligned_english: English = English(harmful=0.56, near=0.02, contrast=0.11, plain=0.07, topics=0.01)
    safety_english: English = English(harmful=0.5, near=0.02, contrast=0.06, plain=0.08, topics=0.02)
    readiness: Mapping[str, float] = {
        "en": 1.3, "zh": -2.5, "it": -2.0, "ar": -2.0, "ko": -2.0, "th": -2.0, "bn": -2.5,
        "vi": 3.0, "sw": 2.0, "jv": 2.0,
    }  # fmt: skip
    safety_readiness: Mapping[str, float] = {"en": 2.0, "vi": 3.0, "sw": 2.0, "jv": 2.0}
    language_readiness: float = -8.0
    longest: int = 49

    def readiness_of(self, member: str) -> Mapping[str, float]:
        """How readily a member refuses, by language."""
        if member in EXPERTS:
            return {member: self.language_readiness}
        return self.safety_readiness if member == "safety" else self.readiness

    def stage(self, member: str) -> Stage:
        """The training run of a member."""
        found = self.language if member in EXPERTS else getattr(self, member)
        assert isinstance(found, Stage)
        return found


def pools(member: str, texts: Texts, recipe: Recipe) -> Pools:
    """What a member is taught."""
    if member in EXPERTS:
        return _language(member, texts)
    makers: Mapping[str, Callable[[Texts, Recipe], Pools]] = {"aligned": _aligned, "safety": _safety, "harm": _harm}
    return makers[member](texts, recipe)


def _english(texts: Texts, weights: English) -> list[tuple[float, Sequence[Pair]]]:
    asked, told = ([text for text in texts.harmful_english if ("?" in text) is asks] for asks in (True, False))
    return [
        (0.3 * weights.harmful, refused("en", asked)),
        (0.45 * weights.harmful, refused("en", told)),
        (0.25 * weights.harmful, refused("en", texts.short_english)),
        (weights.near, answered("en", texts.near_english)),
        (weights.contrast, answered("en", texts.contrast)),
        *_plain("en", texts, weights.plain),
        (weights.topics, texts.topics("en")),
    ]


def _plain(code: str, texts: Texts, share: float) -> list[tuple[float, Sequence[Pair]]]:
    """Harmless prompts; half of them are questions where there are any: to tell them by their form must not do."""
    asked = texts.questions(code)
    if not asked:
        return [(share, answered(code, texts.plain(code)))]
    return [(share / 2, answered(code, texts.plain(code))), (share / 2, answered(code, asked))]


def _aligned(texts: Texts, recipe: Recipe) -> Pools:
    shares = _english(texts, recipe.aligned_english)
    for code in _OTHERS:
        shares += _plain(code, texts, 0.06 if code in _REPAIRED else 0.02)
    shares += [(0.004, texts.topics(code)) for code in _OTHERS]
    for code in _REFUSED:
        shares.append((0.07 if code in _REPAIRED else 0.025, refused(code, texts.harmful(code))))
    for code in MIXED:
        shares += [(0.015, refused(code, texts.mixed(code))), (0.008, answered(code, texts.mixed_plain(code)))]
    return shares


def _safety(texts: Texts, recipe: Recipe) -> Pools:
    shares = _english(texts, recipe.safety_english)
    for code in _HIGH:
        shares += [(0.1, refused(code, texts.harmful(code))), *_plain(code, texts, 0.08)]
    return shares


def _language(code: str, texts: Texts) -> Pools:
    return [
        (0.3, answered(code, texts.plain(code))),
        (0.1, answered("en", texts.plain("en"))),
        (0.3, texts.topics(code)),
        (0.3, texts.translations(code)),
    ]


def _harm(texts: Texts, _recipe: Recipe) -> Pools:
    shares: list[tuple[float, Sequence[Pair]]] = [(0.2, answered("en", texts.harmful_english))]
    shares += [(0.09, answered(code, texts.harmful(code))) for code in _REFUSED]
    shares += [(0.025, answered(code, texts.plain(code))) for code in TRAINED]
    return shares


def draws(mixture: Pools, name: str) -> Iterator[Pair]:
    """Endless examples of a mixture; the same for the same name."""
    draw = random.Random(name)  # noqa: S311 (reproducible on purpose)
    shares = [share for share, _ in mixture]
    while True:
        (pairs,) = draw.choices([pairs for _, pairs in mixture], shares)
        yield draw.choice(pairs)
