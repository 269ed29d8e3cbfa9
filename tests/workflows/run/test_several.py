"""Several recipes at once: the same outputs, and what they have in common is read once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.verify import read_manifest
from polysafe.errors import MismatchError
from polysafe.files import memory
from polysafe.recipe.recipe import Recipe
from polysafe.workflows.run import run_recipe, run_recipes
from tests.engine.recipes import LAYER_SWAP, recipe_for
from tests.models import bowl, bump, tiny_model

LANGUAGES = ("bn", "sw", "te")


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    base = tiny_model(layers=8)
    made = {name: base.updated(seed, bowl(8, height=0.1 * seed)) for seed, name in enumerate(LANGUAGES, 1)}
    models = {"base": base, "safety": base.updated(9, bump(8)), **made}
    return {name: model.save(tmp_path / name) for name, model in models.items()}


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Folder -> bytes that were read of its tensors."""
    found: Counter[str] = Counter()
    read = CheckpointReader.read_into

    def counted(reader: CheckpointReader, name: str, start: int, buffer: memoryview) -> None:
        found[reader.checkpoint.root.name] += len(buffer)
        read(reader, name, start, buffer)

    monkeypatch.setattr(CheckpointReader, "read_into", counted)
    monkeypatch.setattr(memory, "TICK", -1e6)  # the files were made a moment ago
    return found


def swap(language: str) -> dict[str, str]:
    return {**LAYER_SWAP, "language": language, "outside": "language", "granularity": "layer"}


def test_outputs_are_those_of_each_alone_and_experts_are_read_once(
    paths: dict[str, Path], tmp_path: Path, bytes_read: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipes(place: str) -> list[Recipe]:
        return [recipe_for(paths, tmp_path / place / name, swap(name)) for name in LANGUAGES]

    together = [result.output for result in run_recipes(recipes("together"))]
    of_all = Counter(bytes_read)
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "other"))
    bytes_read.clear()
    first = run_recipe(recipes("alone")[0])
    of_one = Counter(bytes_read)
    alone = [first.output, *(run_recipe(recipe).output for recipe in recipes("alone")[1:])]
    assert [read_manifest(each) for each in together] == [read_manifest(each) for each in alone]
    assert of_all["base"] == of_one["base"] > 0
    assert len({json.dumps(read_manifest(each)["edit"]) for each in together}) == 3
    for name in LANGUAGES[1:]:
        assert of_all[name] <= of_one["bn"] + of_one["bn"] // 2


def test_a_recipe_that_does_not_fit_ends_all_before_anything_is_written(paths: dict[str, Path], tmp_path: Path) -> None:
    other = tiny_model(layers=4).save(tmp_path / "other")
    recipes = [
        recipe_for(paths, tmp_path / "out" / "bn", swap("bn")),
        recipe_for({**paths, "sw": other}, tmp_path / "out" / "sw", swap("sw")),
    ]
    with pytest.raises(MismatchError):
        list(run_recipes(recipes))
    assert not (tmp_path / "out" / "bn").exists()
