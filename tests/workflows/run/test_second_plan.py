"""A second plan of the same inputs reads no weights; of others it does."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from polysafe.engine.plan import Plan
from polysafe.files import memory
from polysafe.recipe.recipe import Recipe
from polysafe.workflows.run import plan_recipe
from tests.engine.recipes import LAYER_SWAP, recipe_for
from tests.models import trio

TIES: dict[str, Any] = {"method": "ties", "base": "base", "experts": ["safety", "sw"]}
EDITS = [LAYER_SWAP, {**LAYER_SWAP, "arithmetic": "authors"}, TIES, {**TIES, "trim": "model"}]


@pytest.mark.parametrize("edit", EDITS, ids=["layer_swap", "authors", "ties", "ties of the model"])
def test_it_reads_no_byte(edit: dict[str, Any], tmp_path: Path, bytes_read: Counter[str]) -> None:
    recipe = recipe_for(trio(tmp_path, layers=2).paths, tmp_path / "out", edit)
    first = plan_recipe(recipe)
    once = Counter(bytes_read)
    assert set(once) == {"base", "safety", "sw"}
    second = plan_recipe(recipe)
    assert bytes_read == once
    assert second.to_json() == first.to_json()
    with memory.reading_again():
        assert plan_recipe(recipe).to_json() == first.to_json()
    assert bytes_read == once + once


def edit_of(recipe: Recipe) -> str:
    plan = plan_recipe(recipe)
    assert isinstance(plan, Plan)
    return plan.edit.sha256


@pytest.mark.parametrize("edit", [LAYER_SWAP, TIES], ids=["layer_swap", "ties"])
def test_another_file_in_the_place_of_one_is_read(
    edit: dict[str, Any], tmp_path: Path, bytes_read: Counter[str]
) -> None:
    """Of the same size: a copy of the safety expert as the language expert."""
    paths = trio(tmp_path, layers=2).paths
    recipe = recipe_for(paths, tmp_path / "out", edit)
    first = edit_of(recipe)
    file = paths["sw"] / "model.safetensors"
    shutil.copy2(paths["safety"] / "model.safetensors", paths["sw"] / "new")
    (paths["sw"] / "new").replace(file)
    bytes_read.clear()
    assert edit_of(recipe) != first
    assert bytes_read["sw"] > 0
    assert bytes_read["safety"] == 0
