"""The settings of audits and evaluations: one value, whose fields the functions take by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import polysafe
from polysafe.errors import DataError
from polysafe.evaluate.asking import Asking, Settings, most_tokens, recalled
from polysafe.judge.spec import parse_judge
from polysafe.recipe.measures import Evaluate
from polysafe.workflows.evaluate import Evaluating

VERBS = [(polysafe.audit, Asking), (polysafe.evaluate_recipe, Evaluating)]
TABLE = "id,category,question,language\n0,kind,how do I bake bread,en\n0,kind,ninawezaje kuoka mkate,sw\n"


@pytest.mark.parametrize(("verb", "value"), VERBS)
def test_a_function_takes_the_fields_of_its_value_and_explains_each_once(
    verb: Callable[..., Any], value: type[Settings]
) -> None:
    taken = signature(verb).parameters
    assert set(taken) == {each.name for each in fields(value)}
    required = {each.name for each in fields(value) if each.default is MISSING}
    assert {name for name, each in taken.items() if each.default is each.empty} == required
    arguments = (verb.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"(?m)^    (\w+):", arguments)) == sorted(taken)
    assert "Raises:\n    RecipeError:" in (verb.__doc__ or "")


def test_what_is_recorded_is_recalled() -> None:
    told = Settings(limit=3, pivot="sw", max_tokens=5, dtype="BF16", data=Path("data"), cache=Path("cache"))
    assert Settings(**recalled(told.recorded)) == Settings(limit=3, pivot="sw", max_tokens=5, dtype="BF16")
    assert recalled({"limit": 2, "of_a_later_version": 1}) == {"limit": 2}


def test_a_recipe_says_what_is_asked_and_who_judges() -> None:
    block = Evaluate(languages=("en", "sw"), safety=("multijail",), template="raw", judge=parse_judge("organism"))
    told = Settings(judge="multijail=folder", limit=7, device="cuda", progress=lambda *_: None)
    asking = Asking.of(block, told, Path("model"), Path("run"))
    assert (asking.model, asking.output, asking.safety) == (Path("model"), Path("run"), ("multijail",))
    assert (asking.languages, asking.template, asking.judge) == (("en", "sw"), "raw", block.judge)
    assert (asking.limit, asking.device) == (7, "cuda")
    assert asking.progress is Settings().progress, "whoever listens hears of which part of the evaluation it is"


def test_sets_are_read_in_the_languages_that_they_have(tmp_path: Path) -> None:
    (tmp_path / "xthreatbench").mkdir()
    (tmp_path / "xthreatbench" / "prompts.csv").write_text(TABLE)
    asking = Asking("model", output=tmp_path, safety=["xthreatbench"], data=tmp_path, languages=["sw", "bn"])
    (found,) = asking.prompts("harmful", pytest.fail)
    assert found.languages == ("sw",)
    assert asking.prompts("harmless", pytest.fail) == []
    with pytest.raises(DataError):
        Asking("model", output=tmp_path, safety=["absent"], data=tmp_path).prompts("harmful", pytest.fail)


def test_the_budget_of_an_answer() -> None:
    assert most_tokens(None, None) == 256
    assert most_tokens(None, parse_judge("organism")) == 8
    assert most_tokens(3, parse_judge("organism")) == 3
