"""What a search chose on families of the harder toy: tables add up, and the page has those of the results."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.choosing import ARMS, WAYS, tables
from polysafe.organism.lexicon import LOW

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_tables_of_the_outcomes() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "choosing.json").read_text(encoding="utf-8"))
    assert "\n\n".join(tables(results)) in (ROOT / "docs" / "search.md").read_text(encoding="utf-8")


def test_every_arm_was_tried_in_every_way_with_the_same_budget() -> None:
    for result in json.loads((ROOT / "benchmarks" / "results" / "choosing.json").read_text(encoding="utf-8")):
        tried = {(row["arm"], row["way"], row["start"]) for row in result["rows"] if row["way"]}
        starts = {arm: LOW if arm == "layer_swap" else ("base",) for arm in ARMS}
        assert tried == {(arm, way, start) for arm in ARMS for way in WAYS for start in starts[arm]}
        assert all(row.get("points", result["trials"]) == result["trials"] for row in result["rows"])


def test_a_search_that_takes_nothing_leaves_the_model_as_it_is() -> None:
    for result in json.loads((ROOT / "benchmarks" / "results" / "choosing.json").read_text(encoding="utf-8")):
        unedited = {row["start"]: row["outcomes"] for row in result["rows"] if row["arm"] == "start"}
        for row in result["rows"]:
            if row["way"] in ("tpe", "random") and "chosen" not in row:
                assert row["outcomes"] == unedited[row["start"]]
