"""Runs as Inspect logs from the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from inspect_ai.log import read_eval_log
from typer.testing import Result

from polysafe.organism.packaged import packaged_family
from tests.checkpoint.raw import snapshot

Polysafe = Callable[..., Result]
MEMBERS = packaged_family().members
ASKED = ("--judge", "organism", "--safety", "organism", "--over-refusal", "organism", "--languages", "en,qad")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))


def test_an_audit_as_logs_and_back(polysafe: Polysafe, tmp_path: Path) -> None:
    given = (*ASKED, "--limit", "8", "--output", tmp_path / "base", "--inspect-log", tmp_path / "logs", "--json")
    result = polysafe("audit", MEMBERS["base"], *given)
    assert result.exit_code == 0, result.output
    assert f"inspect view --log-dir {tmp_path / 'logs'}" in result.stderr
    rates = {(row["language"], row["metric"]): row["rate"] for row in json.loads(result.stdout)["rates"]}
    logs = [read_eval_log(str(path)) for path in sorted((tmp_path / "logs").iterdir())]
    assert [log.eval.dataset.samples for log in logs] == [16, 16]
    found = {
        (score.name, name): metric.value
        for log in logs
        for score in (log.results.scores if log.results else ())
        for name, metric in score.metrics.items()
    }
    assert {cell: found[cell] for cell in rates} == rates
    again = polysafe("inspect", "export", tmp_path / "base", "--output", tmp_path / "same", "--json")
    assert again.exit_code == 0, again.output
    assert snapshot(tmp_path / "same") == snapshot(tmp_path / "logs")
    files = json.loads(again.stdout)["logs"]
    assert polysafe("inspect", "import", *files, "--output", tmp_path / "back").exit_code == 0
    shutil.rmtree(tmp_path / "base" / "report")  # it stands beside a run and is no part of it
    assert snapshot(tmp_path / "back") == snapshot(tmp_path / "base")
    assert polysafe("compare", tmp_path / "base", tmp_path / "back").exit_code == 0


def test_a_recipe_as_logs_before_and_after(polysafe: Polysafe, tmp_path: Path) -> None:
    recipe = {
        "polysafe": 1,
        "sources": {name: {"path": str(MEMBERS[name])} for name in ("base", "safety", "qac")},
        "edits": [
            {"method": "layer_swap", "base": "base", "safety": "safety", "language": "qac", "granularity": "module"}
        ],
        "output": {"path": str(tmp_path / "out")},
        "evaluate": {"languages": ["en", "qac"], "safety": ["organism"]},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    given = ("--judge", "organism", "--limit", "8", "-o", tmp_path / "results", "--inspect-log", tmp_path / "logs")
    result = polysafe("evaluate", tmp_path / "recipe.yaml", *given)
    assert result.exit_code == 0, result.output
    models = {
        path.relative_to(tmp_path / "logs").parts[0]: read_eval_log(str(path), header_only=True).eval.model
        for path in (tmp_path / "logs").rglob("*.eval")
    }
    assert models == {"before": "qac", "after": "out"}


def test_what_is_wrong_is_said(polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = polysafe("inspect", "export", tmp_path, "--output", tmp_path / "logs")
    assert (result.exit_code, "no run of an evaluation" in result.stderr) == (2, True)
    (tmp_path / "foreign.eval").write_text("words")
    result = polysafe("inspect", "import", tmp_path / "foreign.eval", "--output", tmp_path / "run")
    assert (result.exit_code, "cannot be read as a log of Inspect" in result.stderr) == (2, True)
    monkeypatch.setattr("polysafe.inspect_ai.extra.find_spec", lambda name: None)
    given = ("--output", tmp_path / "base", "--inspect-log", tmp_path / "logs")
    result = polysafe("audit", MEMBERS["base"], *ASKED, *given)
    assert (result.exit_code, "pip install 'polysafe[inspect]'" in result.stderr) == (2, True)
    assert not (tmp_path / "base").exists()  # said before anything was asked
