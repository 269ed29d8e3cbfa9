"""What a judge is called: short forms of the command line, and what they mean in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from polysafe.errors import RecipeError
from polysafe.judge.block import JudgeBlock, JudgeSpec
from polysafe.judge.guards import GUARDS
from polysafe.judge.kinds.llm import PRESETS, Protocol
from polysafe.judge.kinds.translate import TranslateTestSpec
from polysafe.judge.kinds.vote import VoteSpec
from polysafe.judge.spec import keys_of, parse_judge

URL = "http://localhost:8000/v1"
SERVED = {"base_url": URL, "model": "m"}

SHORT: list[tuple[str | list[str], dict[str, Any]]] = [
    ("organism", {"kind": "organism"}),
    ("qwen3guard=./q", {"kind": "qwen3guard", "path": "./q"}),
    ("qwen3guard.strict=./q", {"kind": "qwen3guard", "path": "./q", "counting": "strict"}),
    (f"llama_guard_4=m@{URL}", {"kind": "llama_guard", "version": 4, **SERVED}),
    ("llama_guard_3=./l", {"kind": "llama_guard", "path": "./l"}),
    ("qwen3guard.loose=./q", {"kind": "qwen3guard", "path": "./q"}),
    (f"multijail=m@{URL}", {"kind": "openai", "protocol": "multijail", **SERVED}),
    ("soteria.published=./j", {"kind": "transformers", "protocol": "soteria.published", "path": "./j"}),
    (["organism"], {"kind": "organism"}),
    (
        ["wildguard=./w", f"strict=m@{URL}"],
        {
            "kind": "vote",
            "judges": [{"kind": "wildguard", "path": "./w"}, {"kind": "openai", "protocol": "strict", **SERVED}],
        },
    ),
]


def block(data: dict[str, Any]) -> JudgeSpec:
    found: JudgeSpec = TypeAdapter[Any](JudgeBlock).validate_python(data)
    return found


@pytest.mark.parametrize(("text", "data"), SHORT)
def test_a_short_form_means_what_a_recipe_says(text: str | list[str], data: dict[str, Any]) -> None:
    assert parse_judge(text) == block(data)


def test_keys_go_to_servers_only_and_translators_around_judges() -> None:
    found = parse_judge(["wildguard=./w", f"strict=m@{URL}"], key="KEY", translate=f"t@{URL}")
    assert isinstance(found, TranslateTestSpec)
    assert found.translator.key == "KEY"
    assert isinstance(found.judge, VoteSpec)
    assert [getattr(judge, "key", None) for judge in found.judge.judges] == [None, "KEY"]
    assert parse_judge("wildguard=w", translate="./madlad").model_dump()["translator"]["path"] == Path.cwd() / "madlad"


def test_a_judge_of_a_recipe_stays_as_it_is() -> None:
    judge = block({"kind": "organism"})
    assert parse_judge(judge) is judge


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("qwen3gard=x", "(?s)no judge 'qwen3gard=x'.*did you mean 'qwen3guard'"),
        ("gpt", "(?s)no judge 'gpt'.*KIND=FOLDER or KIND=NAME@URL"),
        (["organism", "wildguard=x"], "no judge 'organism'"),
        ([], "judges"),
        ("wildguard=", "path"),
        (f"wildguard=@{URL}", "model"),
    ],
)
def test_what_is_no_judge(texts: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse_judge(texts)


def test_the_exact_judge_needs_no_translation() -> None:
    with pytest.raises(RecipeError, match="organism"):
        parse_judge("organism", translate="./madlad")


def test_every_guard_and_protocol_has_a_name() -> None:
    assert set(get_args(Protocol)) == set(PRESETS)
    for family in GUARDS.names():
        assert parse_judge(f"{family}=x").kind == family
        assert "path" in keys_of(family)
    assert keys_of("oracle") == ()
