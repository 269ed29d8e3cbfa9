"""One file of several recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.errors import RecipeError
from polysafe.methods.layer_swap import LayerSwap
from polysafe.recipe.each import load_recipes, make_recipes, parse_recipes, recipes_schema
from polysafe.recipe.recipe import load_recipe, parse_recipe, recipe_schema

TEXT = """\
polysafe: 1
each:
  language: [bn, sw]
  tau: [0.001, 0.01]
sources:
  base: {path: ./base}
  safety: {path: ./safety}
  bn: {path: ./bn}
  sw: {path: ./sw, adapter_of: base}
edits:
  - method: layer_swap
    base: base
    safety: safety
    language: $language
    tau: $tau
output: {path: "./out/${language}-$tau"}
"""
ALONE = """\
polysafe: 1
sources:
  base: {path: ./base}
  safety: {path: ./safety}
  bn: {path: ./bn}
edits:
  - {method: layer_swap, base: base, safety: safety, language: bn, tau: 0.01}
output: {path: ./out/bn-0.01}
"""


def test_every_combination_is_the_recipe_that_would_stand_alone() -> None:
    found = parse_recipes(TEXT, folder="/r")
    assert [each.output.path.name for each in found] == ["bn-0.001", "bn-0.01", "sw-0.001", "sw-0.01"]
    assert found[1] == parse_recipe(ALONE, folder="/r")
    assert found[1].to_yaml() == parse_recipe(ALONE, folder="/r").to_yaml()
    assert list(found[2].sources) == ["base", "safety", "sw"]
    edit = found[2].edits[0]
    assert isinstance(edit, LayerSwap)
    assert edit.tau == 0.001


def test_a_file_of_one_recipe_is_one(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(ALONE)
    assert load_recipes(file) == (load_recipe(file),)
    file.write_text("- no recipe\n")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        load_recipes(file)


def test_only_used_sources_are_kept_with_what_they_adapt() -> None:
    head, _, edits = TEXT.replace("  tau: [0.001, 0.01]\n", "").replace("-$tau", "").partition("  - method")
    text = head + "  - {method: soup, weights: {$language: 1.0}}\n" + edits[edits.index("output") :]
    first, second = parse_recipes(text, folder="/r")
    assert list(first.sources) == ["bn"]
    assert list(second.sources) == ["base", "sw"]


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("[bn, sw]", "[bn, xx]", 14, "with language: xx, tau: 0.001: edits[0].language: no source is called 'xx'"),
        ("[bn, sw]", "[bn, bn]", 3, "'bn' is named twice"),
        ("[bn, sw]", "[]", 3, "at least one is needed"),
        ("[bn, sw]", "bn", 3, "must be a list"),
        ("[bn, sw]", "[bn, [sw]]", 3, "must be a valid"),
        ("  language: [bn", "  other: [1]\n  language: [bn", 3, "`$other` stands nowhere"),
        ("-$tau", "", 16, "several recipes write /r/out/bn"),
        ("[0.001, 0.01]", "[0.001, -1]", 15, "with language: bn, tau: -1"),
        ("  tau: [0.001, 0.01]", f"  tau: {list(range(600))}", 3, "1200 recipes, more than 1000"),
        ("  language: [bn, sw]\n  tau: [0.001, 0.01]\n", "", 2, "must be a mapping"),
    ],
)
def test_mistakes_are_told_with_their_line(old: str, new: str, line: int, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipes(TEXT.replace(old, new, 1), "r.yaml", "/r")
    assert said in str(caught.value)
    assert f"r.yaml:{line}" in str(caught.value)


def test_a_dollar_that_stands_for_nothing_stays() -> None:
    data = {
        "polysafe": 1,
        "each": {"name": ["a"]},
        "sources": {"a": {"path": "/models/$HOME/$name"}},
        "edits": [{"method": "soup", "weights": {"$name": 1.0}}],
        "output": {"path": "/out"},
    }
    (recipe,) = make_recipes(data)
    assert recipe.sources["a"].path == Path("/models/$HOME/a")
    with pytest.raises(RecipeError, match=r"each.gone: `\$gone` stands nowhere"):
        make_recipes({**data, "each": {"name": ["a"], "gone": ["b"]}})


def test_where_one_recipe_is_wanted_several_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(TEXT)
    with pytest.raises(RecipeError, match=r"recipe.yaml:3: each: this file has several recipes"):
        load_recipe(file)


def test_the_schema_has_the_block() -> None:
    schema = recipes_schema()
    json.dumps(schema)
    assert schema["properties"].keys() == recipe_schema()["properties"].keys() | {"each"}
