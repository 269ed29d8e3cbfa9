"""Points are tried on one model that is put back bit for bit, and give what a run would give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polysafe.engine.plan import make_plan
from polysafe.errors import RecipeError
from polysafe.methods.constraints import reading_of
from polysafe.methods.harmless_meter import HarmlessMeter
from polysafe.recipe.recipe import make_recipe
from polysafe.search.bench import Bench
from tests.search.made import VALIDATION, toy_space


def swap(**fields: Any) -> dict[str, Any]:
    return {"method": "layer_swap", "base": "base", "safety": "safety", "language": "qac", **fields}


def task_sum(**fields: Any) -> dict[str, Any]:
    experts = {"method": "task_arithmetic", "base": "base", "experts": ["safety", "qac"], "start_from": "qac"}
    return {**experts, **fields}


def test_a_point_gives_the_edit_of_a_run_and_the_model_is_put_back(tmp_path: Path) -> None:
    searched = toy_space(tmp_path, swap(tau_mode="quantile", tau={"low": 0.0, "high": 1.0}))
    with Bench(searched) as bench:
        before = bench.weights_sha256()
        outcome = bench.outcome({"tau": 0.25})
        again = bench.outcome({"tau": 0.25})
        assert bench.weights_sha256() == before
    assert outcome.edit == make_plan(searched.at({"tau": 0.25})).edit.sha256
    assert outcome.reading == again.reading
    assert outcome.costs["kl"] > 0
    assert 0 < outcome.costs["size"] <= 1
    assert {language for language, _ in reading_of(outcome.reading)} == {"en", "qac"}
    assert [gain["language"] for gain in outcome.gains] == ["qac"]


def test_what_one_process_read_of_the_unedited_model_is_enough_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = toy_space(tmp_path, task_sum(scale={"low": 0.1, "high": 1.0}))
    with Bench(searched) as bench:
        before, outcome = bench.comparing.before, bench.outcome({"scale": 0.5})
    monkeypatch.setattr(HarmlessMeter, "_answered", None)
    with Bench(searched, bench.unedited) as other:
        assert other.comparing.before == before
        assert replace(other.outcome({"scale": 0.5}), seconds={}) == replace(outcome, seconds={})


def test_a_stack_sees_the_result_of_the_edit_before_on_the_same_model(tmp_path: Path) -> None:
    sparse = {
        "method": "sparse_edit",
        "model": "qac",
        "languages": ["qac"],
        "anchors": "organism",
        "layers": [3],
        "cap": 0.2,
        "utility_weight": {"low": 0.5, "high": 2.0},
    }
    searched = toy_space(tmp_path, swap(granularity="layer"), sparse)
    setting = {"edits[1].utility_weight": 1.5}
    with Bench(searched) as bench:
        before = bench.weights_sha256()
        outcome = bench.outcome(setting)
        assert bench.weights_sha256() == before
    assert outcome.edit == make_plan(searched.at(setting)).edit.sha256


def test_nothing_changes_at_a_strength_of_nothing(tmp_path: Path) -> None:
    steering = {"method": "head_steering", "model": "base", "harmful": "harm", "languages": ["qac"], "ranking": "norm"}
    searched = toy_space(tmp_path, {**steering, "tasks": "organism", "strength": {"low": 0.0, "high": 1.0}})
    with Bench(searched) as bench:
        outcome = bench.outcome({"strength": 0.0})
        assert outcome.mean_gain == 0
        assert outcome.costs["kl"] == pytest.approx(0, abs=1e-6)
        assert outcome.costs["size"] == 0
        assert reading_of(outcome.reading) == bench.comparing.before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"validation": None}, "chooses by `validation`"),
        ({"validation": {**VALIDATION, "languages": []}}, "languages that the edits are for are not known"),
        ({"validation": {**VALIDATION, "judge": None}, "search": {"by": "judge"}}, "names none"),
    ],
)
def test_a_recipe_that_cannot_be_searched_is_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    searched = toy_space(tmp_path, task_sum(scale={"low": 0.1, "high": 1.0}), **more)
    with pytest.raises(RecipeError, match=said), Bench(searched):
        pass


def test_edits_of_another_model_are_refused(tmp_path: Path) -> None:
    searched = toy_space(tmp_path, task_sum(scale={"low": 0.1, "high": 1.0}))
    other = make_recipe({**dict(searched.data), "edits": [task_sum(start_from="base", scale=0.5)]})
    with Bench(searched) as bench, pytest.raises(RecipeError, match="start from 'base'"):
        bench.of(other)
