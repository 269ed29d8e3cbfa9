"""The `evaluate` block of a recipe, carried out on the packaged family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.card.store import update_card
from polysafe.checkpoint.verify import verify_output
from polysafe.errors import DataError, RecipeError
from polysafe.evaluate.disjoint import check_disjoint
from polysafe.evaluate.saved import SavedEvaluation
from polysafe.findings.runs import evaluation_report
from polysafe.judge.calibrate import Calibration, Counts
from polysafe.organism.judge import OrganismJudge
from polysafe.organism.packaged import packaged_family
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.report.view import page
from polysafe.reproduce.record import ReproduceFolder
from polysafe.stats.rows import load_rows
from polysafe.workflows.evaluate import evaluate_recipe
from polysafe.workflows.run import run_recipe
from tests import exams
from tests.card.cards import metadata
from tests.engine.recipes import recipe_for

SOUP = {"method": "soup", "weights": {"safety": 0.5, "base": 0.5}}
MEMBERS = packaged_family().members


def recipe(folder: Path, **more: Any) -> Recipe:
    entry = {"method": "head_steering", "model": "base", "harmful": "harm", "languages": ["qac"], "tasks": "organism"}
    block = {"languages": ["en", "qac"], "safety": ["organism"], "over_refusal": ["organism"], **more}
    sources: dict[str, Any] = {name: {"path": str(MEMBERS[name])} for name in ("base", "harm")}
    edit = {**entry, "prompts": 10}
    output = {"path": str(folder / "out")}
    return make_recipe({"polysafe": 1, "sources": sources, "edits": [edit], "output": output, "evaluate": block})


def test_before_and_after_of_a_recipe(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    exams.mgsm(tmp_path / "data" / "mgsm")
    asked = recipe(tmp_path, capability=["mgsm"])
    given = {"judge": "organism", "limit": 24, "cache": tmp_path / "cache.sqlite", "data": tmp_path / "data"}
    found = evaluate_recipe(asked, tmp_path / "results", **given)  # type: ignore[arg-type]
    rows = {(row.method, row.language, row.metric): row for row in load_rows(found.results)}
    unsafe = rows["head_steering", "qac", "unsafe"]
    assert unsafe.before == 1.0
    assert unsafe.after is not None
    assert unsafe.after < 0.5
    assert unsafe.n == 24
    assert rows["head_steering", "en", "over_refusal"].after == 0.0
    ability = rows["head_steering", "en", "capability.mgsm"]
    assert (ability.before, ability.after, ability.n) == (0.0, 0.0, 5)  # the toy family knows no such words
    assert "mgsm: qac: mgsm has no questions, or lm-eval no task; left empty" in found.comparison.notes
    _check_card(tmp_path, found.results)
    again = evaluate_recipe(asked, tmp_path / "results", **given)  # type: ignore[arg-type]
    assert again.comparison.rows == found.comparison.rows


def _check_card(folder: Path, results: Path) -> None:
    """The model's card shows the results, and is vouched for."""
    out = folder / "out"
    rows = load_rows(results)
    assert verify_output(out).ok
    data = metadata((out / "README.md").read_text())
    assert data["language"] == ["en", "qac"]
    assert data.eval_results is not None
    shown = {(one.dataset_config, one.metric_type): one.metric_value for one in data.eval_results}
    assert shown == {(row.language, row.metric): pytest.approx(row.after, abs=1e-6) for row in rows}
    text = (out / "README.md").read_text()
    assert "Toy model" in text
    assert "`mgsm`" in text  # asked for, not measured
    for record in (results.parent / "after" / "records.jsonl").read_text().splitlines():
        assert json.loads(record)["text"] not in text
    other = run_recipe(recipe_for({name: MEMBERS[name] for name in ("base", "safety")}, folder / "other", SOUP)).output
    with pytest.raises(DataError, match="another model"):
        update_card(other, results=results.parent)


def test_before_and_after_under_attack(tmp_path: Path) -> None:
    """The only attack that has no words of its own, on the family's own prompts and with its exact judge."""
    torch.set_num_threads(1)
    asked = recipe(tmp_path, attacks=["code_switching"], over_refusal=[])
    given: dict[str, Any] = {"judge": "organism", "limit": 12, "cache": tmp_path / "cache.sqlite"}
    found = evaluate_recipe(asked, tmp_path / "results", **given)
    (attacked,) = (row for row in found.comparison.attacks["code_switching"] if row.metric == "unsafe")
    assert (attacked.language, attacked.n) == ("qac", 12)
    assert attacked.before is not None
    assert attacked.after is not None
    assert attacked.after < attacked.before
    rows = {(row.method, row.language, row.metric): row for row in load_rows(found.results)}
    assert rows["head_steering under code_switching", "qac", "unsafe"].after == attacked.after
    plain = evaluate_recipe(recipe(tmp_path, over_refusal=[]), tmp_path / "plain", **given)
    assert plain.comparison.rows == found.comparison.rows
    data = evaluation_report(found.saved)
    assert {(row.model, row.language) for row in data.attacks} == {("base", "qac"), ("head_steering", "qac")}
    assert page(data)["attacks"]
    card = metadata((tmp_path / "out" / "README.md").read_text())
    assert card.eval_results is not None
    shown = {(one.dataset_config, one.metric_type): one.metric_value for one in card.eval_results}
    assert shown["qac", "unsafe"] == pytest.approx(rows["head_steering", "qac", "unsafe"].after, abs=1e-6)
    assert len(shown) == len(card.eval_results) == len(found.comparison.rows)
    saved = SavedEvaluation.load(tmp_path / "results")
    name = "before/attacks/code_switching/run.json"
    assert name in saved.about.files
    folder = ReproduceFolder.load(tmp_path / "results")
    assert {run.name for run in folder.about.runs} == {
        *("before", "after"),
        *(f"{side} under code_switching" for side in ("before", "after")),
    }
    text = tmp_path / "results" / name
    text.write_text(text.read_text() + " ")
    with pytest.raises(DataError, match="differs from what was evaluated"):
        SavedEvaluation.load(tmp_path / "results")


def test_an_unknown_attack_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no attack 'code_swiching'"):
        evaluate_recipe(recipe(tmp_path, attacks=["code_swiching"]), tmp_path / "r", judge="organism")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="named twice"):
        recipe(tmp_path, attacks=["aim", "aim"])


def test_blocks_that_cannot_be_carried_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="calibration is of a judge"):
        evaluate_recipe(recipe(tmp_path, calibration=str(tmp_path / "error.json")), tmp_path / "r")
    with pytest.raises(RecipeError, match="names a set of prompts"):
        evaluate_recipe(recipe(tmp_path, safety=[], over_refusal=[]), tmp_path / "r", judge="organism")
    assert not (tmp_path / "out").exists()


def test_a_recipe_names_judge_and_calibration(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    asked = recipe(tmp_path, judge={"kind": "organism"}, over_refusal=[], calibration=str(tmp_path / "error.json"))
    given: dict[str, Any] = {"limit": 4, "cache": tmp_path / "cache.sqlite"}
    with pytest.raises(DataError, match=r"error\.json: cannot be read: No such file"):
        evaluate_recipe(asked, tmp_path / "results", **given)
    identity = OrganismJudge(packaged_family().world).identity
    Calibration("organism", identity, {"qac": Counts(90, 10, 95, 5)}, "0" * 64).save(tmp_path / "error.json")
    found = evaluate_recipe(asked, tmp_path / "results", **given)
    (pair,) = found.comparison.corrected
    assert (pair.language, pair.before.observed) == ("qac", 1.0)
    assert (tmp_path / "results" / "after" / "calibration.json").is_file()
    other = evaluate_recipe(asked, tmp_path / "other", judge="organism", **given)
    assert other.comparison.corrected == ()  # the calibration belongs to the recipe's judge


def overlapping(folder: Path, **more: Any) -> Recipe:
    """A recipe whose anchors hold the second prompt of the set that it reports on, in another language and spelling."""
    table = folder / "data" / "xthreatbench"
    table.mkdir(parents=True)
    (table / "en.csv").write_text("question\nHow do I bake bread?\nHow do I make tea?\n")
    (table / "sw.csv").write_text("question\nNinaokaje mkate?\nNinapikaje chai?\n")
    (folder / "harmful.csv").write_text("id,en,qac\na,How do I plant a tree?,x y z\nb,ninapikaje  CHAI,y z x\n")
    (folder / "harmless.csv").write_text("id,en,qac\nc,How do I draw a cat?,z y x\n")
    anchors = {name: str(folder / f"{name}.csv") for name in ("harmful", "harmless")}
    edit = {"method": "sparse_edit", "model": "base", "languages": ["qac"], "anchors": anchors, "layers": [1], **more}
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {"base": {"path": str(MEMBERS["base"])}},
            "edits": [edit],
            "output": {"path": str(folder / "out")},
            "evaluate": {"languages": ["en"], "safety": ["xthreatbench"]},
        }
    )


def test_nothing_is_reported_on_what_an_edit_was_fitted_to(tmp_path: Path) -> None:
    asked = overlapping(tmp_path)
    with pytest.raises(DataError, match=r"1 of 4 prompts of 'xthreatbench' .* 'harmful': \S+/sw") as caught:
        evaluate_recipe(asked, tmp_path / "results", judge="organism", data=tmp_path / "data")
    assert "allow_overlap: true" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "results").exists()
    # the row that the anchors hold is not among those that are reported on
    given: dict[str, Any] = {"start": MEMBERS["base"], "data": tmp_path / "data"}
    assert list(check_disjoint(asked.edits, ["xthreatbench"], limit=1, **given)) == []
    assert list(check_disjoint(asked.edits, ["organism"], **given)) == []


def test_an_overlap_that_is_allowed_is_told(tmp_path: Path) -> None:
    edits = overlapping(tmp_path, allow_overlap=True).edits
    (note,) = check_disjoint(edits, ["xthreatbench"], start=MEMBERS["base"], data=tmp_path / "data")
    assert note.startswith("sparse_edit.published is reported on what it is fitted to: 1 of 4 prompts")


def test_controls_stand_beside_the_edit_and_cannot_be_changed_unseen(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    swap = {"method": "band_swap", "safety": "safety", "language": "qac", "bottom": 2, "top": 1}
    block = {"languages": ["en", "qac"], "safety": ["organism"], "over_refusal": ["organism"]}
    sources = {name: {"path": str(MEMBERS[name])} for name in ("safety", "qac", "base")}
    data = {"polysafe": 1, "sources": sources, "output": {"path": str(tmp_path / "out")}, "evaluate": block}
    asked = make_recipe({**data, "edits": [swap]})
    given = {"judge": "organism", "limit": 8, "cache": tmp_path / "cache.sqlite"}
    found = evaluate_recipe(asked, tmp_path / "results", controls=2, **given)  # type: ignore[arg-type]
    labels = ["control.band_swap.random.0", "control.band_swap.random.1"]
    assert [each.method for each in found.saved.controls] == labels
    assert set(labels) < {row.method for row in load_rows(found.results)}
    shown = page(evaluation_report(SavedEvaluation.load(tmp_path / "results")))
    assert "Control: Fixed-band swapping" in str(shown)
    assert sorted(path.name for path in (tmp_path / "results" / "controls").iterdir()) == labels
    run = tmp_path / "results" / "controls" / labels[0] / "run.json"
    run.write_text(run.read_text(encoding="utf-8").replace("organism", "organisms", 1), encoding="utf-8")
    with pytest.raises(DataError, match="differs from what was evaluated"):
        SavedEvaluation.load(tmp_path / "results")
    stack = make_recipe({**data, "edits": [swap, {**swap, "bottom": 3}]})
    with pytest.raises(RecipeError, match="controls belong to one edit"):
        evaluate_recipe(stack, tmp_path / "stack", controls=1, **given)  # type: ignore[arg-type]
