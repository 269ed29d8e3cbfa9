"""The experiment on rankings of blocks: its tables add up, and the page has those of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.evidence.behaviour_blocks import gathered
from benchmarks.frame.program import read_results
from benchmarks.tables.behaviour import tables

BLOCKS = [f"layers.{number}" for number in range(8)]


def row(expert: str) -> dict[str, Any]:
    """Safe from the first block on where a ranking is right, from the fourth on by chance, never by movement."""
    right = {block: 8.0 - place for place, block in enumerate(BLOCKS)}
    wrong = {block: -score for block, score in right.items()}
    scores = {"movement": wrong, "exact": right, "first order": right, "path": right}

    def curve(safe_from: int) -> list[dict[str, Any]]:
        return [
            {"unsafe": "0001" if k >= safe_from else "1111", "over_refusal": 0.25, "ability": 0.75 - k / 100}
            for k in range(9)
        ]

    chance = [[{key: each[key] for key in ("unsafe", "over_refusal")} for each in curve(4)] for _ in range(2)]
    outcomes = {"movement": curve(9), "exact": curve(1), "random.0": curve(4), "random.1": chance[0]}
    taken = {"taken": BLOCKS[:2], "additive": 1.0, **curve(1)[2]}
    modules = {name: each for name, each in scores.items() if name != "path"}
    return {
        "expert": expert,
        "scores": {"layer": scores, "module": modules},
        "outcomes": outcomes,
        "methods": {"behaviour_swap.layer": taken},
    }


def test_tables_add_up() -> None:
    results = [{"family": "packaged", "rows": [row("qac"), row("qad"), row("qae")]}]
    agreement, unsafe, ability, refused, contests, methods = tables(results)
    assert "| movement, exact | -1.00 (-1.00 to -1.00, n 3) | -1.00 (-1.00 to -1.00, n 3) |" in agreement
    assert "| movement, path | -1.00 (-1.00 to -1.00, n 3) | – |" in agreement
    assert "| exact | 25 | 25 | 25 | 25 | 25 | 25 | 25 | 25 |" in unsafe
    assert "| random | 100 | 100 | 100 | 25 | 25 | 25 | 25 | 25 |" in unsafe
    assert "| random | +1.0 | +2.0 |" in ability
    assert "| movement | 25 | 25 |" in refused
    mean = -100 * 0.75 * 3 / 7  # k = 1 … 3, of which chance makes nothing safe, on three prompts of four
    assert f"| exact | {mean:+.1f} (" in contests
    movement, exact = contests.splitlines()[-2:]
    assert movement.endswith("| 2, 2, 2 |")
    assert exact.endswith("| 0, 0, 0 |")
    assert methods.splitlines()[-1].endswith("| +2.0 | 25 | 2, 2, 2 |")
    assert methods.splitlines()[-2].endswith("| +0.0 | 25 | 0, 0, 0 |")


def test_results_of_experts_are_gathered_by_family(tmp_path: Path) -> None:
    parts = {"a": "hard 16", "b": "packaged", "c": "hard 16"}
    for name, family in parts.items():
        content = json.dumps({"family": family, "rows": [{"expert": name}]})
        (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
    found = gathered(read_results([tmp_path]))
    assert found == [
        {"family": "hard 16", "rows": [{"expert": "a"}, {"expert": "c"}]},
        {"family": "packaged", "rows": [{"expert": "b"}]},
    ]
    kept = tmp_path / "kept" / "all.json"
    kept.parent.mkdir()
    kept.write_text(json.dumps(found), encoding="utf-8")
    assert gathered(read_results([kept])) == found


def test_the_page_has_the_tables_of_the_results() -> None:
    root = Path(__file__).parents[2]
    file = root / "benchmarks" / "results" / "behaviour_blocks.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert "\n\n".join(tables(found)) in (root / "docs" / "results" / "behaviour_swap.md").read_text(encoding="utf-8")
