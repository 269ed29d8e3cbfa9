"""A recipe that names everything, one that also validates, and random ones."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.methods.registry import resolve
from polysafe.recipe.recipe import parse_recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEXT = f"""\
polysafe: 1
sources:
  base:   {{path: ./base}}
  safety: {{hub: org/safety-en, revision: {COMMIT}}}
  sw:     {{path: /models/expert-sw}}
edits:
  - method: layer_swap
    base: base
    safety: safety
    language: sw
    granularity: layer
    tau: 1e-3
output: {{path: out/sw, shard_size: 512MiB, tokenizer_from: base}}
evaluate:
  languages: [en, sw, no]
  safety: [multijail]
  over_refusal: [xstest]
  capability: [belebele, mgsm]
  judge: {{kind: openai, base_url: "http://localhost:8000/v1", model: guard}}
"""


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "recipe.yaml")
    return str(caught.value)


JUDGE = '{kind: openai, base_url: "http://localhost:8000/v1", model: guard}'
NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True)
FOLDERS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: not text.startswith(("~", "/"))
)
SOURCES = st.one_of(
    FOLDERS.map(lambda path: {"path": path}),
    st.builds(
        lambda org, commit: {"hub": f"{org}/model", "revision": commit},
        NAMES,
        st.text("0123456789abcdef", min_size=40, max_size=40),
    ),
)


def _options(name: str, sources: list[str], draw: Any) -> dict[str, Any]:
    """Random options for the fields of a method whose types say what they may be."""
    options: dict[str, Any] = {}
    for field, about in resolve(name).model_fields.items():
        choices = get_args(about.annotation)
        if choices and all(isinstance(choice, str) for choice in choices) and draw(st.booleans()):
            options[field] = draw(st.sampled_from(choices))
    return options


@st.composite
def recipes(draw: Any) -> dict[str, Any]:
    sources = draw(st.dictionaries(NAMES, SOURCES, min_size=3, max_size=5))
    base, safety, language = list(sources)[:3]
    swap = {"method": "layer_swap", "base": base, "safety": safety, "language": language}
    tau = draw(st.floats(0, 1, allow_nan=False))
    weights = {safety: 0.25, language: 0.75}
    edits = [
        swap | {"tau": tau, "granularity": draw(st.sampled_from(["layer", "module"]))},
        {"method": "soup", "weights": weights} | _options("soup", list(sources), draw),
        {"method": "dare", "base": base, "experts": [safety, language], "seed": draw(st.integers(0, 2**40))},
        {"method": "ties", "base": base, "experts": [language], "density": draw(st.floats(0.01, 1))},
    ]
    return {
        "polysafe": 1,
        "sources": sources,
        "edits": draw(st.lists(st.sampled_from(edits), min_size=1, max_size=3)),
        "output": {"path": draw(FOLDERS), "shard_size": draw(st.integers(1, 10**14))},
        "evaluate": draw(st.none() | st.just({"languages": ["en", "no"], "safety": ["multijail"]})),
    }


VALIDATED = (
    TEXT
    + """\
data: ./sets
validation:
  languages: [en, sw]
  safety: [multijail.validation, ./mine.csv]
  over_refusal: [xstest.harmless]
  signal: refusal
  limit: 20
  constraints: {over_refusal: +0.05, helpful: -0.1}
"""
)
