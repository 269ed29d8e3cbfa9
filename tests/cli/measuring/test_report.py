"""Report, compare and evaluate from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import Result

from polysafe.evaluate.compare import compare_runs
from polysafe.findings.data import ReportData
from polysafe.organism.packaged import packaged_family
from polysafe.report.screen import TOY_NOTICE
from polysafe.stats.rows import load_rows
from polysafe.stats.versus import of_methods
from tests.findings.test_runs import run

Polysafe = Callable[..., Result]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: run(folder / name, limit).folder for name, limit in (("expert", 12), ("swapped", 3), ("souped", 9))}


def test_many_runs_go_into_one_page(polysafe: Polysafe, runs: dict[str, Path], tmp_path: Path) -> None:
    result = polysafe("compare", runs["expert"], runs["swapped"], runs["souped"], "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = load_rows(tmp_path / "out" / "results.json")
    assert of_methods(rows) == [
        row
        for name in ("swapped", "souped")
        for row in compare_runs(runs["expert"], runs[name], name).rows  # adjusted per method and metric
    ]
    data = ReportData.load(tmp_path / "out" / "report" / "report.json")
    assert data.rows == tuple(of_methods(rows))
    assert [(row.method, row.metric) for row in rows if row not in data.rows] == [("swapped against souped", "unsafe")]
    assert f"report   {tmp_path / 'out' / 'report' / 'index.html'}" in result.stdout
    assert "Methods: means over" in result.stdout
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "swapped" in page
    assert "souped" in page


def test_methods_are_named_by_the_user(polysafe: Polysafe, runs: dict[str, Path], tmp_path: Path) -> None:
    three = (runs["expert"], runs["swapped"], runs["souped"])
    shown = polysafe("compare", *three, "--method", "layer_swap.module", "--method", "soup", "--json")
    content = json.loads(shown.stdout)
    assert {row["method"] for row in content["rows"]} == {"layer_swap.module", "soup"}
    assert [each["method"] for each in content["comparisons"]] == ["layer_swap.module", "soup"]
    one = json.loads(polysafe("compare", *three[:2], "--json").stdout)
    assert (one["method"], {row["method"] for row in one["rows"]}) == ("edit", {"edit"})
    for arguments, message in (
        ((*three, "--method", "soup"), "1 names for 2 runs"),
        ((*three, "--method", "soup", "--method", "soup"), "two runs are called 'soup'"),
        ((three[0], three[1], three[1]), "two runs are called 'swapped'"),
        ((*three, "--grouping", "nobody"), "there is no grouping 'nobody'"),
    ):
        result = polysafe("compare", *arguments)
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_report_is_built_anew(polysafe: Polysafe, runs: dict[str, Path]) -> None:
    folder = runs["souped"]
    result = polysafe("report", folder)
    assert result.exit_code == 0, result.output
    page = folder / "report" / "index.html"
    assert f"report   {page}" in result.stdout
    assert "souped: unsafe answers by language" in result.stdout
    content = json.loads(polysafe("report", folder, "--pivot", "sw", "--json").stdout)
    assert content["report"] == str(page)
    assert {row["model"] for row in content["rows"]} == {"souped"}
    grouped = polysafe("report", folder, "--grouping", "soteria")
    assert "Bengali (bn), low-resource" in grouped.stdout
    assert "Swahili (sw), " not in grouped.stdout


def test_what_is_no_result_is_refused(polysafe: Polysafe, tmp_path: Path) -> None:
    result = polysafe("report", tmp_path)
    assert result.exit_code == 2
    assert "name a folder that audit, evaluate, compare or quickstart wrote" in result.stderr


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_recipe_is_evaluated_and_reported(
    polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    members = packaged_family().members
    swap = {"method": "layer_swap", "base": "base", "safety": "safety", "language": "qac", "granularity": "module"}
    recipe: dict[str, Any] = {
        "polysafe": 1,
        "sources": {name: {"path": str(members[name])} for name in ("base", "safety", "qac")},
        "edits": [swap],
        "output": {"path": str(tmp_path / "model")},
        "evaluate": {"languages": ["en", "qac"], "safety": ["organism"]},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = tmp_path / "out"
    result = polysafe("evaluate", tmp_path / "recipe.yaml", "--judge", "organism", "--limit", "12", "-o", out)
    assert result.exit_code == 0, result.output
    assert f"report   {out / 'report' / 'index.html'}" in result.stdout
    assert f"results  {out / 'results.json'}" in result.stdout
    assert "On a model organism" in result.stdout
    assert TOY_NOTICE in result.stderr
    first = (out / "report" / "report.json").read_bytes()
    assert polysafe("report", out).exit_code == 0
    assert (out / "report" / "report.json").read_bytes() == first
    data = ReportData.from_json(first)
    assert data.toy
    assert data.touched[0].target == "qac"
    assert data.languages == {"en": "English", "qac": "Conlang C"}
    assert data.meta["Language groups"]["grouping"] == "organism"
    assert str(tmp_path) not in first.decode()
