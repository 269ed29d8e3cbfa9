"""Which fields of a recipe are searched, and what is wrong with a space is said where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polysafe.errors import RecipeError
from polysafe.recipe.recipe import load_recipe
from polysafe.search.space import Number, Space, load_space, make_space

STEERING = {"method": "head_steering", "model": "m", "harmful": "h", "languages": ["sw"]}
SPARSE = {"method": "sparse_edit", "model": "m", "languages": ["sw"], "anchors": "organism"}


def recipe(*edits: dict[str, Any], **more: Any) -> dict[str, Any]:
    sources = {"m": {"path": "m"}, "h": {"path": "h"}}
    return {"polysafe": 1, "sources": sources, "edits": list(edits), "output": {"path": "out"}, **more}


def space(*edits: dict[str, Any], **more: Any) -> Space:
    return make_space(recipe(*edits, **more), "/")


def test_numbers_choices_and_subsets_go_where_they_stand() -> None:
    found = space(
        {
            **SPARSE,
            "layers": {"among": [2, 3, 4], "most": 2},
            "utility": {"choices": ["soft", "hard"]},
            "utility_weight": {"low": 0.1, "high": 10, "log": True},
            "rank": {"low": 4, "high": 64},
            "target_gain": [1, 3],
        }
    )
    names = [each.name for each in found.parameters]
    assert names == ["layers", "rank", "target_gain", "utility", "utility_weight"]
    made = found.at({"layers": [2, 4], "rank": 8, "target_gain": 3, "utility": "hard", "utility_weight": 0.5})
    edit = made.edits[0].model_dump()
    assert (edit["layers"], edit["rank"], edit["target_gain"], edit["utility"]) == ((2, 4), 8, 3, "hard")
    whole = {each.name: each.whole for each in found.parameters}
    assert whole["rank"]
    assert not whole["utility_weight"]
    assert found.size is None


def test_a_list_of_a_field_that_takes_lists_is_that_list() -> None:
    found = space({**SPARSE, "layers": [2, 4], "target_gain": [1, 3]})
    assert [each.name for each in found.parameters] == ["target_gain"]
    assert found.first.edits[0].model_dump()["layers"] == (2, 4)


def test_a_number_for_a_field_that_takes_a_list_is_a_list_of_one() -> None:
    found = space({**SPARSE, "layers": {"low": 2, "high": 5}})
    (layers,) = found.parameters
    assert (layers.listed, layers.whole, layers.size) == (True, True, 4)
    assert found.at({"layers": 5}).edits[0].model_dump()["layers"] == (5,)


def test_fields_of_a_stack_are_told_apart() -> None:
    found = space({**SPARSE, "rank": {"low": 4, "high": 8}}, {**STEERING, "strength": {"low": 0.0, "high": 1.0}})
    assert [each.name for each in found.parameters] == ["edits[0].rank", "edits[1].strength"]
    assert found.size is None


def test_the_size_of_a_space_counts_subsets() -> None:
    found = space({**SPARSE, "layers": {"among": [1, 2, 3, 4], "most": 2}, "utility": {"choices": ["soft", "none"]}})
    assert found.size == (4 + 6) * 2


def test_the_published_point_is_there_where_it_is_in_the_space() -> None:
    inside = space({**STEERING, "strength": {"low": 0.5, "high": 2.0}, "fraction": {"choices": [0.25, 0.5]}})
    assert inside.defaults() == {"strength": 1.0, "fraction": 0.5}
    assert space({**STEERING, "strength": {"low": 2.0, "high": 3.0}}).defaults() is None


def test_nested_places_are_searched() -> None:
    found = space({**SPARSE, "weights": {"sw": {"low": 0.5, "high": 2.0}}})
    assert [each.name for each in found.parameters] == ["weights.sw"]
    assert found.at({"weights.sw": 1.5}).edits[0].model_dump()["weights"] == {"sw": 1.5}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({**STEERING, "strenght": {"low": 0, "high": 1}}, "did you mean 'strength'"),
        ({**STEERING, "strength": {"low": 2, "high": 1}}, "low 2.* is not below high 1"),
        ({**STEERING, "strength": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({**STEERING, "fraction": {"low": 0.1, "high": 1.5}}, "fraction"),
        ({**STEERING, "strength": {"low": 0.1, "high": 1.5, "steps": 2}}, "unknown key 'steps'"),
        ({**SPARSE, "utility": {"choices": ["soft", "sift"]}}, "utility"),
        ({**SPARSE, "layers": {"among": []}}, "layers"),
        (STEERING, "nothing is to be searched"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(edit: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        space(edit)


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "polysafe: 1\nsources: {m: {path: m}, h: {path: h}}\nedits:\n"
        "  - method: head_steering\n    model: m\n    harmful: h\n    languages: [sw]\n"
        "    strength: {low: 3, high: 1}\noutput: {path: out}\n"
    )
    with pytest.raises(RecipeError, match=r"recipe\.yaml:8"):
        load_space(file)


def test_a_recipe_that_is_to_be_searched_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "polysafe: 1\nsources: {m: {path: m}, h: {path: h}}\nedits:\n"
        "  - {method: head_steering, model: m, harmful: h, languages: [sw], strength: {low: 0.5, high: 1}}\n"
        "output: {path: out}\nsearch: {trials: 3}\n"
    )
    with pytest.raises(RecipeError, match="polysafe search"):
        load_recipe(file)
    assert load_space(file).search.trials == 3
    assert isinstance(load_space(file).parameters[0].domain, Number)


@pytest.mark.parametrize("search", [{"trials": 0}, {"minutes": 0}, {"trails": 5}, {"objectives": []}])
def test_a_budget_of_nothing_is_refused(search: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="search"):
        space({**STEERING, "strength": {"low": 0.5, "high": 1}}, search=search)
