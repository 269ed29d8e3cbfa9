"""The `evaluate` block of a recipe, carried out on the packaged family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.verify import verify_output
from polysafe.engine.run import run_recipe
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.recipe import evaluate_recipe
from polysafe.organism.packaged import packaged_family
from polysafe.recipe import Recipe, make_recipe
from polysafe.report.card_store import update_card
from polysafe.stats.rows import load_rows
from tests.engine.recipes import recipe_for
from tests.report.cards import metadata

SOUP = {"method": "soup", "weights": {"safety": 0.5, "base": 0.5}}
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
    asked = recipe(tmp_path, capability=["mgsm"])
    given = {"judge": "organism", "limit": 24, "cache": tmp_path / "cache.sqlite"}
    found = evaluate_recipe(asked, tmp_path / "results", **given)  # type: ignore[arg-type]
    rows = {(row.method, row.language, row.metric): row for row in load_rows(found.results)}
    unsafe = rows["head_steering", "qac", "unsafe"]
    assert unsafe.before == 1.0
    assert unsafe.after is not None
    assert unsafe.after < 0.5
    assert unsafe.n == 24
    assert rows["head_steering", "en", "over_refusal"].after == 0.0
    assert "mgsm" in found.notes[0]
    _check_card(tmp_path, found.results)
    again = evaluate_recipe(asked, tmp_path / "results", **given)  # type: ignore[arg-type]
    assert again.comparison.rows == found.comparison.rows


def _check_card(folder: Path, results: Path) -> None:
    """The model's card shows the results, and is vouched for."""
    out = folder / "out"
    rows = load_rows(results)
    assert verify_output(out).ok
    data = metadata((out / "README.md").read_text())
    assert data["language"] == ["en", "qac"]
    assert data.eval_results is not None
    shown = {(one.dataset_config, one.metric_type): one.metric_value for one in data.eval_results}
    assert shown == {(row.language, row.metric): pytest.approx(row.after, abs=1e-6) for row in rows}
    text = (out / "README.md").read_text()
    assert "Toy model" in text
    assert "`mgsm`" in text  # asked for, not measured
    for record in (results.parent / "after" / "records.jsonl").read_text().splitlines():
        assert json.loads(record)["text"] not in text
    other = run_recipe(recipe_for({name: MEMBERS[name] for name in ("base", "safety")}, folder / "other", SOUP)).output
    with pytest.raises(DataError, match="another model"):
        update_card(other, results=results.parent)


def test_blocks_that_cannot_be_carried_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no judge is named"):
        evaluate_recipe(recipe(tmp_path), tmp_path / "r")
    with pytest.raises(RecipeError, match="names a set of prompts"):
        evaluate_recipe(recipe(tmp_path, safety=[], over_refusal=[]), tmp_path / "r", judge="organism")
    assert not (tmp_path / "out").exists()
