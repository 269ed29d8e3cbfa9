from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from tests.models import read_weights, write_weights
from tests.workflows.test_verify import vouch

Polysafe = Callable[..., Result]


def test_run_then_verify(polysafe: Polysafe, recipe: Path) -> None:
    out = recipe.parent / "out"
    result = polysafe("run", recipe)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{out}: ")
    assert (out / "model.safetensors").is_file()
    checked = polysafe("verify", out)
    assert checked.exit_code == 0
    assert "as it was written" in checked.stdout


def test_second_run_says_that_nothing_was_done(polysafe: Polysafe, recipe: Path) -> None:
    first = json.loads(polysafe("run", recipe, "--json").stdout)
    second = polysafe("run", recipe, "--json")
    assert json.loads(second.stdout) == {**first, "complete_before": True}
    assert "complete already" in polysafe("run", recipe).stderr


def test_notes_of_a_plan_are_told_once_by_plan_and_by_run(polysafe: Polysafe, recipe: Path) -> None:
    (recipe.parent / "safety" / "chat_template.jinja").write_text("{{ messages }}")
    planned, made = polysafe("plan", recipe), polysafe("run", recipe)
    for text in (planned.stdout, made.stderr):
        assert text.count("note: sw: has no chat template, so the output") == 1
    (told,) = json.loads(polysafe("run", recipe, "--json").stdout)["notes"]
    assert f"note: {told}" in made.stderr.splitlines()


def test_an_edit_that_is_looked_for_in_the_model_is_shown(polysafe: Polysafe, recipe: Path) -> None:
    polysafe("run", recipe)
    out = recipe.parent / "out"
    result = polysafe("edit", "explain", out)
    assert result.exit_code == 2
    assert f"out: is a model, not an edit\n  its edit is in {out / 'polysafe'}\n" in result.stderr
    assert polysafe("edit", "explain", out / "polysafe").exit_code == 0


def test_several_recipes_are_carried_out(polysafe: Polysafe, recipe: Path) -> None:
    other = recipe.with_name("other.yaml")
    other.write_text(recipe.read_text().replace("./out", "./elsewhere"))
    made = json.loads(polysafe("run", recipe, other, "--read-again", "--json").stdout)
    assert [Path(each["output"]).name for each in made] == ["out", "elsewhere"]
    assert made[0]["manifest"] == made[1]["manifest"]


EACH = """\
polysafe: 1
each: {language: [sw, gone]}
sources:
  base:   {path: ./base}
  safety: {path: ./safety}
  sw:     {path: ./sw}
  gone:   {path: ./gone}
edits:
  - {method: layer_swap, base: base, safety: safety, language: $language}
output: {path: ./made/$language}
"""


def test_one_of_several_that_fails_is_named_and_the_others_are_made(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(EACH)
    planned = polysafe("plan", recipe)
    assert planned.exit_code == 2
    assert f"error: {recipe.parent / 'made/gone'}: not made: {recipe.parent / 'gone'}: " in planned.stderr
    assert f"{recipe.parent / 'made/sw'}:" in planned.stdout.splitlines()
    assert not (recipe.parent / "made").exists()
    result = polysafe("run", recipe, "--json")
    assert result.exit_code == 2
    made, failed = json.loads(result.stdout)
    assert polysafe("verify", made["output"]).exit_code == 0
    assert failed["output"] == str(recipe.parent / "made/gone")
    assert "gone: " in failed["error"]


def test_changed_output_does_not_pass(polysafe: Polysafe, recipe: Path) -> None:
    polysafe("run", recipe)
    out = recipe.parent / "out"
    with (out / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    (out / "extra.txt").write_text("x")
    result = polysafe("verify", out)
    assert result.exit_code == 1
    assert "problem: model.safetensors: " in result.stdout
    assert "note: extra.txt is not in the manifest" in result.stdout
    as_json = polysafe("verify", out, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["ok"] is False


def test_verify_of_what_polysafe_did_not_write(polysafe: Polysafe, recipe: Path) -> None:
    result = polysafe("verify", recipe.parent / "sw")
    assert result.exit_code == 2
    assert "has no manifest" in result.stderr


def test_unknown_engine(polysafe: Polysafe, recipe: Path) -> None:
    result = polysafe("run", recipe, "--engine", "warp")
    assert result.exit_code == 2
    assert "engines: local" in result.stderr


def test_evaluate_block_is_said_to_have_no_effect(polysafe: Polysafe, recipe: Path) -> None:
    recipe.write_text(recipe.read_text() + "evaluate: {languages: [en, sw]}\n")
    result = polysafe("run", recipe)
    assert result.exit_code == 0
    assert "nothing is measured" in result.stderr


def test_deep_verification(polysafe: Polysafe, recipe: Path) -> None:
    polysafe("run", recipe)
    out = recipe.parent / "out"
    result = polysafe("verify", out, "--deep")
    assert result.exit_code == 0
    assert "as its edit says; largest difference 0, tolerance" in result.stdout
    content = json.loads(polysafe("verify", out, "--deep", "--json").stdout)
    assert content["ok"]
    assert content["deep"]["largest"] == 0
    (recipe.parent / "safety").rename(recipe.parent / "moved")
    gone = polysafe("verify", out, "--deep")
    assert gone.exit_code == 2
    assert "--source" in gone.stderr
    places = {"safety": "moved", "sw": "sw", "base": "base"}
    sources = [f"--source={name}={recipe.parent / place}" for name, place in places.items()]
    assert polysafe("verify", out, "--deep", *sources).exit_code == 0
    assert polysafe("verify", out, *sources).exit_code == 2


def test_deep_verification_says_no(polysafe: Polysafe, recipe: Path) -> None:
    polysafe("run", recipe)
    out = recipe.parent / "out"
    weights = read_weights(out)
    weights["model.layers.0.mlp.up_proj.weight"].zero_()
    write_weights(out, weights)
    vouch(out)
    assert polysafe("verify", out).exit_code == 0
    result = polysafe("verify", out, "--deep")
    assert result.exit_code == 1
    assert "problem: not as its edit says" in result.stdout
    assert "note: 1 tensor of nothing but zeros: model.layers.0.mlp.up_proj.weight" in result.stdout
    assert not json.loads(polysafe("verify", out, "--deep", "--json").stdout)["ok"]
