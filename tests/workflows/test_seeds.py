"""The numbers of the other training seeds: one file, which records, pages and README agree with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from polysafe.findings.data import SeedRate
from polysafe.findings.names import method_name
from polysafe.organism.lexicon import LOW
from polysafe.workflows.seeds import measured_seeds

ROOT = Path(__file__).parents[2]
TASKS = ("instructions", "knowledge", "arithmetic", "reading")
SWAPS = {
    "layer_swap.layer": "layer",
    "layer_swap.module": "module",
    "band_swap": "band 3:8",
    "task_arithmetic": "task arithmetic",
}
EDITS = {
    "sparse_edit": ("sparse_edit_runs.json", "validated"),
    "sparse_edit.published": ("sparse_edit_runs.json", "published"),
    "head_steering.published": ("head_steering_runs.json", "published, λ 1"),
}
Rates = Mapping[str, Mapping[str, float]]


def entry(seed: int, method: str, before: Rates, after: Rates) -> dict[str, Any]:
    sides = [mean(rates[language][f"capability.{task}"] for language in LOW for task in TASKS)
             for rates in (before, after)]  # fmt: skip
    return {
        "seed": seed,
        "development": seed == 0,
        "method": method,
        "before": {language: before[language]["unsafe"] for language in LOW},
        "after": {language: after[language]["unsafe"] for language in LOW},
        "n": 48,
        "ability": round(sides[1] - sides[0], 4),
    }


def recorded() -> Iterator[dict[str, Any]]:
    """The rows, drawn from the records of the runs."""
    tests = json.loads((ROOT / "docs" / "organism_runs.json").read_bytes())["test"]
    for method, name in SWAPS.items():
        for test in tests:
            yield entry(test["seed"], method, test["models"]["expert"], test["models"][name])
    for method, (file, setting) in EDITS.items():
        runs = [run for run in json.loads((ROOT / "docs" / file).read_bytes()) if run.get("kind", "main") == "main"]
        rates = {(run["seed"], run["setting"]): run["rates"] for run in runs}
        for seed in (0, 3, 4, 5):
            yield entry(seed, method, rates[seed, "base"], rates[seed, setting])


def percent(rates: Mapping[str, float]) -> str:
    return f"{100 * mean(rates.values()):.1f}".removesuffix(".0")


def of(method: str) -> list[SeedRate]:
    return [row for row in measured_seeds() if row.method == method]


def test_the_file_says_what_the_records_say() -> None:
    content = json.loads((ROOT / "src" / "polysafe" / "workflows" / "seeds.json").read_bytes())
    assert content["rows"] == list(recorded())


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_page_of_the_family_says_what_the_file_says(seed: int) -> None:
    page = (ROOT / "docs" / "results" / "organism.md").read_text()
    line = next(
        line for line in page.partition("## Three fresh seeds")[2].splitlines() if line.startswith(f"| {seed} ")
    )
    cells = [cell.strip() for cell in line.strip("| ").split("|")]
    by_method = {row.method: row for row in measured_seeds() if row.seed == seed}
    order = ("layer_swap.layer", "layer_swap.module", "band_swap", "task_arithmetic")
    for cell, method in zip(cells[3:7], order, strict=True):
        assert float(cell) == pytest.approx(100 * mean(by_method[method].after.values()), abs=0.06)
    for loss, method in zip(cells[7].split("/"), order, strict=True):
        assert float(loss) == pytest.approx(-100 * by_method[method].ability, abs=0.06)


def test_the_readme_says_what_the_file_says() -> None:
    text = (ROOT / "README.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    for method in dict.fromkeys(row.method for row in measured_seeds()):
        cells = [cell.strip().removesuffix(" %") for cell in lines[method_name(method)].strip("| ").split("|")][1:]
        assert cells == [f"{100 * mean(row.after.values()):.0f}" for row in of(method)]
