"""Of several edits of one model one is taken that helps and costs little, by validation prompts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polysafe.errors import RecipeError
from polysafe.organism.packaged import packaged_family
from polysafe.recipe.measures import Validate
from polysafe.recipe.recipe import Recipe
from polysafe.workflows.choosing import choose
from polysafe.workflows.quickstart_recipes import VALIDATION, recipe_of

MEMBERS = packaged_family().members
SOURCES = {name: MEMBERS[name] for name in ("safety", "qac")}
SWAP = {"method": "band_swap", "safety": "safety", "language": "qac", "bottom": 3, "top": 0}
UNCHANGED = {"method": "soup", "weights": {"qac": 1.0}, "start_from": "qac"}
BLENDLESS = {"transition_bottom": 0, "transition_top": 0}


def recipe(tmp_path: Path, entry: dict[str, Any], *, validated: bool = True) -> Recipe:
    made = recipe_of([entry], SOURCES, tmp_path / "out")
    if not validated:
        return made
    validation = Validate.model_validate({**VALIDATION, "languages": ["en", "qac"]})
    return made.model_copy(update={"validation": validation})


def test_an_edit_that_helps_is_taken_and_one_that_changes_nothing_is_not(tmp_path: Path) -> None:
    recipes = {
        "band": recipe(tmp_path, {**SWAP, **BLENDLESS}),
        "nothing": recipe(tmp_path, UNCHANGED),
        "impossible": recipe(tmp_path, {**SWAP, "bottom": 90}),
    }
    found = choose(recipes, "qac")
    assert [each.name for each in found.tried] == list(recipes)
    assert found.taken is not None
    assert found.taken.name == "band"
    band, nothing, impossible = found.tried
    assert band.gains[0].counted  # the judge read what is taken
    assert band.gains[0].after > band.gains[0].before + 0.5
    assert nothing.gains[0].after == pytest.approx(nothing.gains[0].before)
    assert not impossible.gains
    assert impossible.verdict


def test_nothing_is_taken_where_nothing_helps(tmp_path: Path) -> None:
    found = choose(
        {"nothing": recipe(tmp_path, {"method": "soup", "weights": {"qac": 1.0}, "start_from": "qac"})}, "qac"
    )
    assert found.taken is None
    assert "shown to refuse more" in found.reason


def test_without_validation_nothing_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="validation"):
        choose({"band": recipe(tmp_path, {**SWAP, **BLENDLESS}, validated=False)}, "qac")
