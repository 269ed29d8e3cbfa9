"""The page on sparse weight editing shows the numbers that were measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.sparse_edit import tables

DOCS = Path(__file__).parents[2] / "docs"
TABLES = tables(json.loads((DOCS / "sparse_edit_runs.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_runs(name: str) -> None:
    assert TABLES[name] in (DOCS / "sparse_edit.md").read_text(encoding="utf-8")
