from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Polysafe = Callable[..., Result]


@pytest.fixture
def done(polysafe: Polysafe, recipe: Path) -> Path:
    """Folder of the models, with the output of the recipe in `out`."""
    assert polysafe("run", recipe).exit_code == 0
    return recipe.parent


def sources(folder: Path) -> list[str]:
    return [part for name in ("base", "safety", "sw") for part in ("--source", f"{name}={folder / name}")]


def test_explain(polysafe: Polysafe, done: Path) -> None:
    result = polysafe("edit", "explain", done / "out/polysafe")
    assert result.exit_code == 0
    for words in ("starts from 'sw'", "method: layer_swap.v1", "tau: 0.001", "layer 7", "copy of safety"):
        assert words in result.stdout


def test_explain_as_json(polysafe: Polysafe, done: Path) -> None:
    content = json.loads(polysafe("edit", "explain", done / "out/polysafe/edit.json", "--json").stdout)
    assert content["start"] == "sw"
    assert content["methods"][0]["method"] == "layer_swap.v1"


def test_apply_gives_the_bytes_of_the_run(polysafe: Polysafe, done: Path) -> None:
    result = polysafe("edit", "apply", done / "out/polysafe", *sources(done), "--output", done / "again")
    assert result.exit_code == 0
    weights = (done / "out/model.safetensors").read_bytes()
    assert (done / "again/model.safetensors").read_bytes() == weights


def test_undo_gives_the_bytes_of_the_original(polysafe: Polysafe, done: Path) -> None:
    result = polysafe(
        *("edit", "undo", done / "out/polysafe", "--edited", done / "out"),
        *("--original", done / "sw", "--output", done / "undone", "--json"),
    )
    assert result.exit_code == 0
    assert json.loads(result.stdout)["output"] == str(done / "undone")
    weights = (done / "sw/model.safetensors").read_bytes()
    assert (done / "undone/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--source", "base"], "'base' is not NAME=FOLDER"),
        (["--source", "base="], "'base=' is not NAME=FOLDER"),
        (["--source", "a=x", "--source", "a=y"], "'a' is given twice"),
    ],
)
def test_sources_that_cannot_be_understood(polysafe: Polysafe, done: Path, given: list[str], message: str) -> None:
    result = polysafe("edit", "apply", done / "out/polysafe", *given, "--output", done / "x")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (done / "x").exists()


def test_other_model_is_refused_unless_forced(polysafe: Polysafe, done: Path) -> None:
    given = [argument.replace(f"safety={done}/safety", f"safety={done}/base") for argument in sources(done)]
    refused = polysafe("edit", "apply", done / "out/polysafe", *given, "--output", done / "x")
    assert refused.exit_code == 2
    assert "is not the checkpoint that the edit was made for" in refused.stderr
    forced = polysafe("edit", "apply", done / "out/polysafe", *given, "--output", done / "x", "--force")
    assert forced.exit_code == 0


def test_what_is_no_edit(polysafe: Polysafe, done: Path) -> None:
    result = polysafe("edit", "explain", done / "sw/config.json")
    assert result.exit_code == 2
    assert "is no edit file" in result.stderr
