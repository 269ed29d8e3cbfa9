"""`polysafe mergekit import` and `export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.recipe.recipe import load_recipe
from tests.cli.conftest import Polysafe
from tests.models import trio

TEXT = """\
merge_method: linear
models:
  - {model: one/base, parameters: {weight: 1}}
  - {model: one/sw, parameters: {weight: 3}}
parameters: {int8_mask: true}
"""


def test_a_configuration_becomes_a_recipe_that_runs(
    polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trio(tmp_path / "one", layers=2)
    (tmp_path / "merge.yml").write_text(TEXT, encoding="utf-8")
    done = polysafe("mergekit", "import", "merge.yml", "-o", "recipes/soup.yaml", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["written"] == "recipes/soup.yaml"
    assert [note.split(" ")[0] for note in told["notes"]] == ["`int8_mask`", "config"]
    recipe = load_recipe("recipes/soup.yaml")
    assert recipe.sources["sw"].path == tmp_path / "one" / "sw"
    assert recipe.output.path == tmp_path / "recipes" / "soup-model"
    assert polysafe("run", "recipes/soup.yaml").exit_code == 0
    assert (tmp_path / "recipes" / "soup-model" / "model.safetensors").is_file()
    back = polysafe("mergekit", "export", "recipes/soup.yaml", "-o", "back.yml")
    assert (back.exit_code, back.stdout) == (0, "back.yml\n")
    assert polysafe("mergekit", "import", "back.yml", "-o", "recipes/again.yaml").exit_code == 0
    assert load_recipe("recipes/again.yaml").edits == recipe.edits


def test_the_folder_of_the_model_can_be_named(polysafe: Polysafe, tmp_path: Path) -> None:
    (tmp_path / "merge.yml").write_text(TEXT.replace("one/", "/m/"), encoding="utf-8")
    done = polysafe(
        "mergekit", "import", tmp_path / "merge.yml", "-o", tmp_path / "soup.yaml", "--model", tmp_path / "there"
    )
    assert done.exit_code == 0
    assert load_recipe(tmp_path / "soup.yaml").output.path == tmp_path / "there"


def test_what_is_refused_writes_nothing(polysafe: Polysafe, tmp_path: Path) -> None:
    file = tmp_path / "merge.yml"
    file.write_text(TEXT.replace("linear", "karcher"), encoding="utf-8")
    done = polysafe("mergekit", "import", file, "-o", tmp_path / "recipe.yaml")
    assert done.exit_code == 2
    assert f"{file}:1: merge_method: the method 'karcher' has no counterpart" in done.stderr
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_recipe_that_mergekit_cannot_say(polysafe: Polysafe, recipe: Path, tmp_path: Path) -> None:
    done = polysafe("mergekit", "export", recipe, "-o", tmp_path / "merge.yml")
    assert done.exit_code == 2
    assert "'layer_swap' has no counterpart" in done.stderr
