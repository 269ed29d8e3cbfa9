"""The `evaluate` block of a recipe, carried out on the packaged family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.recipe import evaluate_recipe
from polysafe.judge.calibrate import Calibration, Counts
from polysafe.judge.organism import OrganismJudge
from polysafe.organism.packaged import packaged_family
from polysafe.recipe import Recipe, make_recipe
from polysafe.stats.rows import load_rows
from tests import exams

MEMBERS = packaged_family().members


def recipe(folder: Path, **more: Any) -> Recipe:
    entry = {"method": "head_steering", "model": "base", "harmful": "harm", "languages": ["qac"], "tasks": "organism"}
    block = {"languages": ["en", "qac"], "safety": ["organism"], "over_refusal": ["organism"], **more}
    sources: dict[str, Any] = {name: {"path": str(MEMBERS[name])} for name in ("base", "harm")}
    edit = {**entry, "prompts": 10}
    output = {"path": str(folder / "out")}
    return make_recipe({"polysafe": 1, "sources": sources, "edits": [edit], "output": output, "evaluate": block})


def test_before_and_after_of_a_recipe(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    exams.mgsm(tmp_path / "data" / "mgsm")
    asked = recipe(tmp_path, capability=["mgsm"])
    given = {"judge": "organism", "limit": 24, "cache": tmp_path / "cache.sqlite", "data": tmp_path / "data"}
    found = evaluate_recipe(asked, tmp_path / "results", **given)  # type: ignore[arg-type]
    rows = {(row.method, row.language, row.metric): row for row in load_rows(found.results)}
    unsafe = rows["head_steering", "qac", "unsafe"]
    assert unsafe.before == 1.0
    assert unsafe.after is not None
    assert unsafe.after < 0.5
    assert unsafe.n == 24
    assert rows["head_steering", "en", "over_refusal"].after == 0.0
    ability = rows["head_steering", "en", "capability.mgsm"]
    assert (ability.before, ability.after, ability.n) == (0.0, 0.0, 5)  # the toy family knows no such words
    assert "mgsm: qac: mgsm has no questions, or lm-eval no task; left empty" in found.comparison.notes
    again = evaluate_recipe(asked, tmp_path / "results", **given)  # type: ignore[arg-type]
    assert again.comparison.rows == found.comparison.rows


def test_blocks_that_cannot_be_carried_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no judge is named"):
        evaluate_recipe(recipe(tmp_path), tmp_path / "r")
    with pytest.raises(RecipeError, match="names a set of prompts"):
        evaluate_recipe(recipe(tmp_path, safety=[], over_refusal=[]), tmp_path / "r", judge="organism")
    assert not (tmp_path / "out").exists()


def test_a_recipe_names_judge_and_calibration(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    asked = recipe(tmp_path, judge={"kind": "organism"}, over_refusal=[], calibration=str(tmp_path / "error.json"))
    given: dict[str, Any] = {"limit": 4, "cache": tmp_path / "cache.sqlite"}
    with pytest.raises(DataError, match="is no calibration"):
        evaluate_recipe(asked, tmp_path / "results", **given)
    identity = OrganismJudge(packaged_family().world).identity
    Calibration("organism", identity, {"qac": Counts(90, 10, 95, 5)}, "0" * 64).save(tmp_path / "error.json")
    found = evaluate_recipe(asked, tmp_path / "results", **given)
    (pair,) = found.comparison.corrected
    assert (pair.language, pair.before.observed) == ("qac", 1.0)
    assert (tmp_path / "results" / "after" / "calibration.json").is_file()
    other = evaluate_recipe(asked, tmp_path / "other", judge="organism", **given)
    assert other.comparison.corrected == ()  # the calibration belongs to the recipe's judge
