"""The hub's own list of licences."""

from __future__ import annotations

import re

import pytest

from polysafe.checkpoint.licence import _TEXTS, UNDECIDED, ChosenLicence, chosen_licence, hub_licences
from polysafe.errors import RecipeError
from polysafe.recipe.recipe import parse_recipe

RECIPE = """\
polysafe: 1
sources: {a: {path: ./a}, b: {path: ./b}}
edits: [{method: soup, weights: {a: 0.5, b: 0.5}}]
output:
  path: ./out
"""


def test_the_list_holds_what_is_recognised_elsewhere() -> None:
    known = hub_licences()
    assert {name for _, name in _TEXTS} | UNDECIDED <= set(known)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", name) and title for name, title in known.items())
    assert len(known) > 70


def test_choices() -> None:
    assert chosen_licence(" Apache-2.0 ") == ChosenLicence("apache-2.0")
    assert chosen_licence("openrail++") == ChosenLicence("openrail++")
    assert str(chosen_licence("other", "ours-1.0")) == "other (ours-1.0)"


def test_a_recipe_is_checked_the_same_way_and_says_the_line() -> None:
    recipe = parse_recipe(RECIPE + "  license: mit\n")
    assert recipe.output.license == "mit"
    assert parse_recipe(recipe.to_yaml()) == recipe
    assert "license" not in parse_recipe(RECIPE).to_yaml()
    named = parse_recipe(RECIPE + "  license: other\n  license_name: ours\n")
    assert (named.output.license, named.output.license_name) == ("other", "ours")
    for line, words in (
        ("  license: apach-2", "did you mean 'apache-2.0'"),
        ("  license: other", "needs a name"),
        ("  license_name: ours", "only the licence `other` has a name"),
    ):
        with pytest.raises(RecipeError, match=words) as refused:
            parse_recipe(RECIPE + line + "\n")
        assert ":6:" in str(refused.value) or "line 6" in str(refused.value)
