"""A wrong checkpoint is refused by its hash, and told what it is most like."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from polysafe.edits.edit import Edit
from polysafe.engine.given import open_given
from polysafe.errors import MismatchError
from polysafe.workflows.run import run_recipe
from tests.engine.recipes import SOUP, recipe_for
from tests.models import Trio, read_weights, trio, write_weights

NORM = "model.norm.weight"


@pytest.fixture
def models(tmp_path: Path) -> Trio:
    return trio(tmp_path, layers=2, shards=2)


@pytest.fixture
def edit(models: Trio, tmp_path: Path) -> Edit:
    run_recipe(recipe_for(models.paths, tmp_path / "out", SOUP))
    return Edit.load(tmp_path / "out" / "polysafe")


def refusal(edit: Edit, sw: Path, safety: Path, recorded: Path | None = None) -> str:
    with pytest.raises(MismatchError, match="the SHA-256 of its weight files differ") as caught:
        open_given(edit, {"sw": sw, "safety": safety}, recorded=recorded)
    return caught.value.problem.partition("; ")[2]


def changed(folder: Path, *names: str, shards: int = 2) -> Path:
    """A copy of a model with other numbers in some tensors."""
    copy = folder.with_name("changed")
    shutil.copytree(folder, copy)
    weights = read_weights(copy)
    for file in copy.glob("model*"):
        file.unlink()
    write_weights(copy, {name: tensor + (name in names) for name, tensor in weights.items()}, shards=shards)
    return copy


def test_exchanged_folders_are_told(edit: Edit, models: Trio) -> None:
    assert refusal(edit, models.safety, models.language) in (
        "they are those of its source 'safety' (safety)",
        "they are those of its source 'sw' (sw)",
    )


def test_a_file_that_differs_is_told(edit: Edit, models: Trio) -> None:
    told = refusal(edit, changed(models.language, NORM), models.safety)
    assert told.startswith("1 of 2 are those of 'sw', not model-0000")


def test_tensors_are_compared_where_the_right_model_is_still_there(edit: Edit, models: Trio, tmp_path: Path) -> None:
    wrong = changed(models.language, NORM, "lm_head.weight", shards=1)
    total = len(read_weights(wrong))
    told = refusal(edit, wrong, models.safety, recorded=tmp_path / "out")
    listed = {f"{total - 2} of its {total} tensors are those of 'sw'; 2 differ: {pair}" for pair in (
        f"lm_head.weight, {NORM}", f"{NORM}, lm_head.weight")}  # fmt: skip
    assert told in listed


def test_nothing_in_common_with_what_is_there(edit: Edit, models: Trio, tmp_path: Path) -> None:
    wrong = changed(models.language, *read_weights(models.language), shards=1)
    assert refusal(edit, wrong, models.safety) == "no tensor is one of its sources"
    shutil.rmtree(models.safety)
    other = trio(tmp_path / "others", layers=2, seed=7).safety
    assert refusal(edit, wrong, other) == "none is one of its other sources"
    shutil.rmtree(tmp_path / "out")
    assert refusal(edit, wrong, other, recorded=tmp_path / "out") == "none is one of its other sources"


def test_numbers_that_are_none_are_compared_bit_for_bit(models: Trio, tmp_path: Path) -> None:
    weights = read_weights(models.language)
    weights[NORM][0] = float("nan")
    write_weights(models.language, weights, shards=2)
    run_recipe(recipe_for(models.paths, tmp_path / "out", SOUP | {"restrict_to": "layers"}))
    edit = Edit.load(tmp_path / "out" / "polysafe")
    wrong = changed(models.language, "lm_head.weight", shards=1)
    assert torch.isnan(read_weights(wrong)[NORM][0])
    assert "1 differ: lm_head.weight" in refusal(edit, wrong, models.safety, recorded=tmp_path / "out")
