"""The pages on methods show the numbers that were measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evidence import head_steering, sparse_edit

DOCS = Path(__file__).parents[2] / "docs"
PAGES: dict[str, Callable[[list[dict[str, Any]]], dict[str, str]]] = {
    "sparse_edit": sparse_edit.tables,
    "head_steering": head_steering.tables,
}


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_runs(page: str) -> None:
    text = (DOCS / "results" / f"{page}.md").read_text(encoding="utf-8")
    tables = PAGES[page](json.loads((DOCS / f"{page}_runs.json").read_text(encoding="utf-8")))
    assert tables
    assert [name for name, table in tables.items() if table not in text] == []
