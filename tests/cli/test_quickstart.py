from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from polysafe.findings.data import ReportData
from polysafe.findings.verdict import judge
from polysafe.organism.packaged import NOTICE
from polysafe.progress import tell
from polysafe.report.screen import TOY_NOTICE
from polysafe.stats.rows import Row
from polysafe.workflows.quickstart import Quickstart

Polysafe = Callable[..., Result]

ROWS = (
    Row("layer_swap.module", "qac", "unsafe", 1.0, 0.125, 48, 0.92, 1.0, 0.05, 0.25, 1e-9, 3e-9),
    Row("layer_swap.module", "qac", "capability.reading", 0.9, 0.9, 48, 0.8, 0.96, 0.8, 0.96, 1.0, 1.0),
    Row("layer_swap.module", "qac", "over_refusal", None, None, 0),
    Row("control.soup", "qac", "unsafe", 1.0, 1.0, 48, 0.92, 1.0, 0.92, 1.0, 1.0, 1.0),
)
DATA = ReportData("quickstart", ROWS, toy=True, tiers={"qac": "low"})


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Output folders that the story was asked to go to; it is not told here, but in its own tests."""
    folders: list[Path] = []

    def run(output: Path, *, workers: int) -> Quickstart:
        folders.append(output)
        assert workers >= 1
        tell("examining models", 1, 2)
        return Quickstart(output / "report/index.html", output / "results.json", DATA)

    monkeypatch.setattr("polysafe.cli.commands.quickstart.run_quickstart", run)
    return folders


def test_quickstart_shows_rates_with_intervals_and_where_the_report_is(
    polysafe: Polysafe, told: list[Path], tmp_path: Path
) -> None:
    result = polysafe("quickstart", "--output", tmp_path)
    assert result.exit_code == 0
    assert told == [tmp_path]
    line = next(line for line in result.stdout.splitlines() if ", low-resource" in line).replace("\u202f", " ")
    assert "100 → 12 %" in line
    assert "92–100 → 5–25" in line
    assert " 48 " in line
    assert "< 0.001" in line
    assert str(tmp_path / "report/index.html") in result.stdout
    assert judge(DATA).sentence in result.stdout
    assert "controls, in the report and in the results: 1" in result.stderr
    assert TOY_NOTICE in result.stderr


def test_quickstart_as_json(polysafe: Polysafe, told: list[Path], tmp_path: Path) -> None:
    content = json.loads(polysafe("quickstart", "-o", tmp_path, "--json").stdout)
    assert content["notice"] == NOTICE
    assert content["verdict"] == judge(DATA).sentence
    assert [row["metric"] for row in content["rows"]] == ["unsafe", "capability.reading", "over_refusal", "unsafe"]


def test_quickstart_has_a_folder_of_its_own_by_default(polysafe: Polysafe, told: list[Path]) -> None:
    polysafe("quickstart")
    assert told == [Path("quickstart-out")]
