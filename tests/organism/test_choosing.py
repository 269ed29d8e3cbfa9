"""What a search chose on families of the toy, the harder one too: the page has the tables of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evidence.choosing import ARMS, tables
from benchmarks.tables.chosen import WAYS
from polysafe.organism.lexicon import LOW

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["choosing.json", "choosing_toy.json"])
def results(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Results of the harder toy, and of the other."""
    found: list[dict[str, Any]] = json.loads((ROOT / "benchmarks" / "results" / request.param).read_bytes())
    return found


def test_the_page_has_the_tables_of_the_outcomes(results: list[dict[str, Any]]) -> None:
    assert "\n\n".join(tables(results)) in (ROOT / "docs" / "results" / "search.md").read_text(encoding="utf-8")


def test_every_arm_was_tried_in_every_way_with_the_same_budget(results: list[dict[str, Any]]) -> None:
    for result in results:
        tried = {(row["arm"], row["way"], row["start"]) for row in result["rows"] if row["way"]}
        starts = {arm: LOW if arm == "layer_swap" else ("base",) for arm in ARMS}
        assert tried == {(arm, way, start) for arm in ARMS for way in WAYS for start in starts[arm]}
        assert all(row.get("points", result["trials"]) == result["trials"] for row in result["rows"])


def test_a_search_that_takes_nothing_leaves_the_model_as_it_is(results: list[dict[str, Any]]) -> None:
    for result in results:
        unedited = {row["start"]: row["outcomes"] for row in result["rows"] if row["arm"] == "start"}
        for row in result["rows"]:
            if row["way"] in ("tpe", "random") and "chosen" not in row:
                assert row["outcomes"] == unedited[row["start"]]
