"""The page on scale shows what its program made, and the program makes it again from headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed.scale import planned, tables
from polysafe.engine.forecast import Rates

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks/results/scale.json").read_text(encoding="utf-8"))


def test_the_page_shows_the_tables() -> None:
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    for table in tables(RESULTS):
        assert table in page
    assert f"(load {RESULTS['load']:.0f};" in page


def test_what_plans_go_by_are_the_rates_that_were_measured() -> None:
    measured = Rates(**RESULTS["rates"])
    for name in ("norms", "hashing", "mixing"):
        assert getattr(Rates(), name) == pytest.approx(getattr(measured, name), rel=0.05)


def test_the_plans_are_made_again_from_headers(tmp_path: Path) -> None:
    again = json.loads(json.dumps(planned(tmp_path, Rates(**RESULTS["rates"]))))
    assert again == {name: RESULTS[name] for name in again}
