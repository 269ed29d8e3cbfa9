from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from polysafe.cli.decisions import print_trials
from polysafe.files import memory
from tests.byte_level import save_byte_model

Polysafe = Callable[..., Result]

WITHOUT_TORCH = """\
import sys
sys.modules["torch"] = None  # whoever imports it is refused
from typer.testing import CliRunner
from polysafe.cli.app import app
for line in sys.stdin.read().splitlines():
    ended = CliRunner().invoke(app, line.split("|"))
    assert ended.exit_code == 0, (line, ended.output, ended.exception)
"""


def test_what_computes_nothing_does_not_wait_for_torch(
    polysafe: Polysafe, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing it takes longer than all that these commands do, once the norms of the models are known."""
    monkeypatch.setattr(memory, "TICK", -1e6)  # files of tests were made a moment ago
    assert polysafe("run", recipe, "--quiet").exit_code == 0
    out = recipe.parent / "out"
    lines = [f"plan|{recipe}", f"run|{recipe}", f"verify|{out}", f"edit|explain|{out / 'polysafe'}", f"card|{out}"]
    program = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(
        program, input="\n".join(lines), env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_not_there_is_told_by_the_name_of_its_source(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("./safety", "./saftey"))
    result = polysafe("plan", recipe)
    assert result.exit_code == 2
    assert "saftey: there is no such folder (source 'safety' of the recipe)" in result.stderr


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


SPARSE = """\
polysafe: 1
sources: {model: {path: ./model}}
edits:
  - method: sparse_edit
    model: model
    languages: [sw]
    anchors: {set: mine, limit: 12}
    layers: [auto]
    template: raw
    tau_mag: 0.5
    tau_stat: 0.2
    cap: 0.5
output: {path: ./out}
"""


def sparse_recipe(folder: Path, *more: str) -> Path:
    """A recipe on a random model, with anchors in tables."""
    save_byte_model(folder / "model")
    for name, words in (("harmful", "please do harm"), ("harmless", "bake a loaf")):
        rows = "".join(f"{words} {n * n},{n} {words}\n" for n in range(14))
        (folder / f"{name}.csv").write_text(f"en,sw\n{rows}")
    anchors = "anchors: {harmful: ./harmful.csv, harmless: ./harmless.csv}"
    file = folder / "sparse.yaml"
    file.write_text(SPARSE.replace("anchors: {set: mine, limit: 12}", anchors) + "".join(more))
    return file


def test_plan_says_what_it_would_run_and_fits_when_told_to(polysafe: Polysafe, tmp_path: Path) -> None:
    recipe = sparse_recipe(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = polysafe("plan", recipe)
    assert result.exit_code == 0
    line, held_out = [line for line in result.stdout.splitlines() if "anchors" in line and "model" in line.split()]
    assert line.split() == ["sparse_edit.published", "anchors", "model", "56", "2", "1", "56"]
    assert "held-out anchors" in held_out
    assert "nothing was run" in result.stdout
    assert sorted(tmp_path.iterdir()) == before
    content = json.loads(polysafe("plan", recipe, "--json").stdout)
    assert (content["fitted"], content["work"]["sparse_edit.published"][0]["prompts"]) == (False, 56)

    fitted = polysafe("plan", recipe, "--fit")
    assert fitted.exit_code == 0, fitted.output
    assert "score on the anchors" in fitted.stdout
    assert polysafe("plan", recipe).stdout.splitlines()[:5] == fitted.stdout.splitlines()[:5]
    assert polysafe("run", recipe).exit_code == 0
    explained = polysafe("edit", "explain", tmp_path / "out/polysafe").stdout
    assert "score on the anchors" in explained


def test_validation_that_takes_no_candidate_is_told_and_no_edit_is_made(polysafe: Polysafe, tmp_path: Path) -> None:
    (tmp_path / "asked.csv").write_text("en,sw\n" + "".join(f"more harm {n},{n} zaidi\n" for n in range(4)))
    (tmp_path / "fine_en.csv").write_text("prompt\n" + "".join(f"water {n} plants\n" for n in range(4)))
    block = "validation: {safety: [./asked.csv], over_refusal: [./fine_en.csv], limit: 4}\n"
    recipe = sparse_recipe(tmp_path, block)
    result = polysafe("run", recipe)
    assert result.exit_code == 1
    assert "so that no edit is made" in result.stderr
    assert "layers 0" in result.stderr
    assert not (tmp_path / "out").exists()


def test_trials_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    gain = {"language": "sw", "metric": "refused", "difference": 0.25, "low": 0.1, "high": 0.4, "n": 20}
    loss = {**gain, "metric": "over_refusal", "language": "en", "within": False}
    trials = [
        {"layers": [3], "gain": 1.0, "feasible": True, "p_value": 0.003, "gains": [gain], "losses": []},
        {"layers": [3, 5], "gain": 2.0, "feasible": False, "p_value": 0.2, "gains": [gain], "losses": [loss]},
        {"layers": [6], "gain": 1.0, "problem": "no safety neuron"},
    ]
    print_trials({"chosen": {"layers": [3], "gain": 1.0}, "trials": trials})
    out = capsys.readouterr().out
    assert "sw +0.250 (+0.10 … +0.40), n = 20" in out
    assert "over_refusal en +0.250" in out
    assert "no safety neuron" in out
    assert out.count("taken") == 1
    print_trials({"chosen": {}, "trials": [{"fraction": 0.5, "shortfall": 0.125, "standings": {}}]})
    assert "short by 0.125" in capsys.readouterr().out
