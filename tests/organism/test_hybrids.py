"""Stacks against single edits: tables add up, and the page has those of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence.hybrids import SETTINGS, tables
from polysafe.organism.lexicon import LANGUAGES, LOW, PIVOT

ROOT = Path(__file__).parents[2]
ARMS = ("layer_swap", "sparse_edit", "layer_swap+sparse_edit")


def row(kind: str, arm: str, start: str, unsafe: str) -> dict[str, Any]:
    asked = LANGUAGES if start == "base" else (PIVOT, start)
    found = {f"{language}/unsafe": unsafe for language in asked}
    found |= {f"{language}/{metric}": "0" * 8 for language in asked for metric in ("over_refusal", "invalid")}
    found |= {f"{language}/capability.reading": "1" * 8 for language in asked}
    return {"kind": kind, "arm": arm, "start": start, "outcomes": found}


def test_a_stack_that_does_more_than_its_best_part_is_shown_to() -> None:
    answers = dict(zip(ARMS, ("11110000", "11111111", "00000000"), strict=True))
    rows = [row("unedited", "", name, "1" * 8) for name in ("base", *LOW)]
    rows += [row(kind, arm, expert, answers[arm]) for kind in SETTINGS for expert in LOW for arm in ARMS]
    rows += [row("languages", "sparse_edit for qac", "base", "10000000")]
    published, _, languages = tables([{"family": "seed 1", "rows": rows}])
    _, alone, worse, stack = published.splitlines()[-4:]
    assert "best alone" in alone
    assert "| +50.0 (" in worse
    assert "| -50.0 (" in stack
    assert stack.startswith("| `layer_swap+sparse_edit` | 0 (0\N{EN DASH}")  # never certain: an interval at 0
    assert languages.splitlines()[-1].startswith("| `sparse_edit for qac` | 12 | 12 ")


def test_the_page_has_the_tables_of_the_results() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "hybrids.json").read_text(encoding="utf-8"))
    assert "\n\n".join(tables(results)) in (ROOT / "docs" / "hybrids.md").read_text(encoding="utf-8")
