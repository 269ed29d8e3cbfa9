"""Recipes that leave a machine, and come to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from polysafe.errors import RecipeError
from polysafe.files.paths import without_places
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.recipe.places import NO_JUDGE, content, option_files, placed, portable
from polysafe.recipe.recipe import Recipe, make_recipe, parse_recipe
from polysafe.reproduce.inputs import Input, InputName

HUB = {"hub": "org/name", "revision": "a" * 40}


def recipe(folder: Path, **sources: Any) -> Recipe:
    anchors = {"harmful": str(folder / "one/anchors.csv"), "harmless": str(folder / "two/anchors.csv")}
    edit = {"method": "sparse_edit", "model": "m", "languages": ["sw"], "anchors": anchors}
    edit["evaluation"] = [str(folder / "m"), str(folder / "odd name é.csv")]
    judge = {"kind": "openai", "base_url": "http://gpu7.internal:8000/v1", "model": "judge"}
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {"m": {"path": str(folder / "model")}, **sources},
            "edits": [edit],
            "output": {"path": str(folder / "out")},
            "evaluate": {
                "languages": ["sw"],
                "safety": ["multijail"],
                "attacks": ["aim", str(folder / "mine.txt")],
                "judge": judge,
            },
        }
    )


def test_a_portable_recipe_names_no_place_and_writes_every_default_out(tmp_path: Path) -> None:
    text = portable(recipe(tmp_path, h=HUB))
    assert str(tmp_path) not in text
    assert "gpu7" not in text
    data = yaml.safe_load(text)
    assert data["sources"] == {"m": {"path": "./sources/m"}, "h": HUB}
    assert data["edits"][0]["anchors"]["harmful"] == "./sources/anchors.csv"
    assert data["edits"][0]["anchors"]["harmless"] == "./sources/2-anchors.csv"
    assert data["edits"][0]["evaluation"] == ["./sources/2-m", "./sources/odd_name__.csv"]
    assert data["edits"][0]["ridge"] == SparseEdit.model_fields["ridge"].default
    assert data["evaluate"]["attacks"] == ["aim", "./sources/mine.txt"]
    assert data["output"] == {"path": "./model", "shard_size": "5GB", "tokenizer_from": None}


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_names_of_files_lead_nowhere_and_are_distinct(names: list[str]) -> None:
    files = [f"/{number}/{name}" for number, name in enumerate(names) if name not in {".", ".."}]
    entry = {"method": "sparse_edit", "model": "m", "languages": ["sw"], "anchors": "organism", "evaluation": files}
    data = {"polysafe": 1, "sources": {"m": HUB}, "edits": [entry], "output": {"path": "/out"}}
    found = option_files(make_recipe(data))
    assert [str(path) for path in found.values()] == files
    about = {name: Input(kind="data", files={}) for name in found}
    assert TypeAdapter(dict[InputName, Input]).validate_python(about) == about


def test_a_portable_recipe_comes_back_with_the_places_of_a_machine(tmp_path: Path) -> None:
    original = recipe(tmp_path, h=HUB)
    away = parse_recipe(portable(original), folder=tmp_path / "reproduce")
    places = {"m": tmp_path / "model", **option_files(original)}
    back = placed(away, tmp_path / "reproduce", places, tmp_path / "out")
    assert back.sources == original.sources
    assert back.edits == original.edits
    assert back.output == original.output
    assert back.evaluate is not None
    assert original.evaluate is not None
    assert back.evaluate.attacks == original.evaluate.attacks == ("aim", tmp_path / "mine.txt")
    assert portable(back) == portable(original)


def test_a_folder_in_place_of_the_hub_is_the_same_recipe(tmp_path: Path) -> None:
    original = recipe(tmp_path, h=HUB)
    away = parse_recipe(portable(original), folder=tmp_path)
    places = {"m": tmp_path / "model", "h": tmp_path / "download", **option_files(original)}
    back = placed(away, tmp_path, places, tmp_path / "out")
    assert back.sources["h"].path == tmp_path / "download"
    assert portable(back) != portable(original)
    assert content(yaml.safe_load(portable(back))) == content(yaml.safe_load(portable(original)))


@pytest.mark.hostile("reproduction")
def test_a_recipe_from_elsewhere_cannot_name_other_files(tmp_path: Path) -> None:
    text = portable(recipe(tmp_path)).replace("./sources/anchors.csv", "/etc/passwd")
    with pytest.raises(RecipeError, match="no input on record"):
        placed(parse_recipe(text, folder=tmp_path), tmp_path, {"2-anchors.csv": tmp_path}, tmp_path / "out")


def test_judges_in_folders_and_calibrations_are_inputs(tmp_path: Path) -> None:
    guard = {"kind": "qwen3guard", "path": str(tmp_path / "guard")}
    judges = [guard, {"kind": "openai", "base_url": "http://gpu7:1/v1", "model": "j"}]
    block = {"languages": ["sw"], "safety": ["multijail"], "calibration": str(tmp_path / "error.json")}
    entry = {"method": "soup", "weights": {"m": 0.5, "h": 0.5}, "start_from": "m"}
    data = {"polysafe": 1, "sources": {"m": HUB, "h": HUB}, "edits": [entry], "output": {"path": str(tmp_path / "out")}}
    recipe = make_recipe({**data, "evaluate": {**block, "judge": {"kind": "vote", "judges": judges}}})
    assert option_files(recipe) == {"error.json": tmp_path / "error.json", "guard": tmp_path / "guard"}
    text = portable(recipe)
    assert yaml.safe_load(text)["evaluate"]["judge"]["judges"] == [
        {"path": "./sources/guard", "kind": "qwen3guard", "counting": "loose"},
        {"kind": "openai", "base_url": NO_JUDGE, "model": "j", "protocol": "multijail"},
    ]
    back = placed(parse_recipe(text, folder=tmp_path), tmp_path, option_files(recipe), tmp_path / "out")
    assert portable(back) == text
    assert str(tmp_path / "guard") in back.to_yaml()


def test_an_edit_says_the_names_of_files_and_not_where_they_lay(tmp_path: Path) -> None:
    (method,) = recipe(tmp_path).edits
    options = without_places(method.model_dump(mode="json"))
    assert str(tmp_path) not in str(options)
    assert options["anchors"]["harmful"] == "anchors.csv"
    assert options["evaluation"] == ["m", "odd name é.csv"]
    assert method.model_dump(mode="json")["anchors"]["harmful"] == str(tmp_path / "one/anchors.csv")
