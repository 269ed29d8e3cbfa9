"""Model cards for the tests."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from polysafe.card.data import Card, CardMethod, CardResults, CardSet, CardSource
from polysafe.checkpoint.hub import HubId
from polysafe.checkpoint.licence import Licence
from polysafe.findings.data import JudgeError
from polysafe.stats import Row, compare_outcomes
from tests.report.examples import outcomes

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def metadata(text: str) -> ModelCardData:
    """What the hub reads at the top of a card."""
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def rows(method: str = "layer_swap.module") -> tuple[Row, ...]:
    """Every kind of metric in two languages."""
    languages = {"sw": 0.5, "zh-Hans": 0.25}
    names = ("unsafe", "safe", "invalid", "wrong_language", "over_refusal", "harmless_invalid", "capability.mgsm")
    before = outcomes(dict.fromkeys(names, languages), seed=1)
    after = outcomes({name: {code: rate / 5 for code, rate in languages.items()} for name in names}, seed=2)
    return tuple(compare_outcomes(method, before, after))


def results(text: str = "multijail", method: str = "layer_swap.module") -> CardResults:
    """Results whose names are all `text`."""
    return CardResults(
        rows=rows(method),
        sets=(CardSet(text, "harmful", 96, "a" * 64), CardSet("xstest", "harmless", 96, "b" * 64)),
        judge=text,
        judge_errors=(JudgeError(text, text, 0.9, 0.8, 0.95, 100, 0.95, 0.9, 0.99, 200),),
        sampling={"max_tokens": 256, "temperature": 0.0, text: text},
        versions={"polysafe": "0.1.0", text: text},
        notes=(text,),
    )


def card(text: str = "expert", **changes: Any) -> Card:
    """A card in which everything that comes from outside is `text`."""
    values: dict[str, Any] = {
        "polysafe": "0.1.0",
        "edit": "c" * 64,
        "start": text,
        "tokenizer_from": text,
        "sources": (
            CardSource("base", "org/base@" + COMMIT, (HubId("org/base", COMMIT),), {"m.safetensors": "d" * 64}, ()),
            CardSource(text, text, (), {text: "e" * 64}, (Licence(None, text, text),)),
        ),
        "methods": (CardMethod("layer_swap.v1", text, {"tau": 0.1, text: [text]}, (text,), (text,)),),
        "operations": {f"copy of {text}": 12, "copy of base": 3},
        "merged": True,
        "recipe": f"polysafe: 1\n{text}\n",
        "asked": {"languages": ("sw", "bn", text), "capability": ("mgsm", text)},
    }
    return Card(**{**values, **changes})
