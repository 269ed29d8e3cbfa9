from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Polysafe = Callable[..., Result]


def test_plan_shows_every_block_with_its_score(polysafe: Polysafe, recipe: Path) -> None:
    result = polysafe("plan", recipe)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    for layer in range(8):
        (line,) = [line for line in lines if line.startswith(f"layer {layer} ")]
        assert len(re.findall(r"(safety|language|blend 0\.50)\s+[+-]0\.\d{4}", line)) == 2
    for block in ("embedding", "final_norm", "head", "norms"):
        assert sum(line.startswith(block) for line in lines) == 1


def test_plan_shows_what_it_takes(polysafe: Polysafe, recipe: Path) -> None:
    out = polysafe("plan", recipe).stdout
    for word in ("copy of sw", "reads", "writes", "free on disk", "peak memory", "time, about", "tokenizer from"):
        assert word in out


def test_plan_of_layers_has_one_decision_per_line(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("language: sw", "language: sw\n    granularity: layer"))
    lines = polysafe("plan", recipe).stdout.splitlines()
    assert "layer_swap.layer" in lines
    assert sum(len(re.findall(r"[+-]0\.\d{4}", line)) for line in lines if line.startswith("layer ")) == 8


def test_borderline_decisions_are_marked(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("language: sw", "language: sw\n    borderline: 1"))
    result = polysafe("plan", recipe)
    assert sum(line.count("≈") for line in result.stdout.splitlines() if line.startswith("layer ")) == 16
    assert "rounding of the inputs could have turned this decision" in result.stdout


def test_plan_of_several_edits_shows_each(polysafe: Polysafe, recipe: Path) -> None:
    second = "  - {method: band_swap, safety: safety, language: sw, bottom: 1, top: 1}\n"
    recipe.write_text(recipe.read_text().replace("output:", second + "output:"))
    out = polysafe("plan", recipe).stdout
    assert "layer_swap.module" in out
    assert "band_swap" in out


def test_json_is_one_document_with_cost_and_decisions(polysafe: Polysafe, recipe: Path) -> None:
    result = polysafe("plan", recipe, "--json")
    content = json.loads(result.stdout)
    assert result.stderr == ""
    assert content["cost"]["bytes_written"] > 0
    assert content["output"] == str(recipe.parent / "out")
    assert len([d for d in content["methods"][0]["decisions"] if d["layer"] is not None]) == 16


def test_plan_writes_nothing_but_what_it_is_asked_to(polysafe: Polysafe, recipe: Path) -> None:
    before = sorted(recipe.parent.rglob("*"))
    polysafe("plan", recipe)
    assert sorted(recipe.parent.rglob("*")) == before
    saved = recipe.parent / "plan.json"
    result = polysafe("plan", recipe, "--json", "--save", saved)
    assert sorted(recipe.parent.rglob("*")) == sorted([*before, saved])
    assert json.loads(saved.read_text()) == json.loads(result.stdout)


def test_plan_that_cannot_be_saved(polysafe: Polysafe, recipe: Path) -> None:
    result = polysafe("plan", recipe, "--save", recipe.parent / "absent/plan.json")
    assert result.exit_code == 2
    assert "error: " in result.stderr
    assert "plan.json" in result.stderr


def test_output_inside_an_input_is_refused(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("./out", "./sw/out"))
    result = polysafe("plan", recipe)
    assert result.exit_code == 2
    assert "lie inside the input" in result.stderr
