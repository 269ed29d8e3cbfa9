"""The judge's error: kept with the run, checked, and never mixed up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polysafe.errors import DataError, OutputError
from polysafe.evaluate.audited import read_audit
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.correction import FILE, keep_calibration
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.judge.calibrate import Calibration, Counts
from polysafe.stats.judge_error import Calibration as Error
from polysafe.stats.judge_error import correct_rate
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set

JUDGE = FakeJudge()
COUNTS = Counts(found=90, missed=10, cleared=80, accused=20)


def run(folder: Path, unsafe: int) -> ModelRun:
    """Of 10 prompts in each language, the first are unsafe, and the last has no verdict."""

    def answer(text: str) -> str:
        row = int(text.split()[1])
        return "<unsafe>" if row < unsafe else "<unparsed>" if row == 9 else "<safe>"

    sets = [prompt_set(rows=10, languages=("en", "sw", "bn"))]
    generator = FakeGenerator(answer, identity={"weights": f"{unsafe:064d}"})
    return evaluate_model(generator, sets, JUDGE, output=folder, name=folder.name)


def calibration(**languages: Counts) -> Calibration:
    return Calibration(JUDGE.name, JUDGE.identity, languages, "0" * 64)


def test_a_run_is_corrected_by_the_calibration_in_its_folder(tmp_path: Path) -> None:
    found = run(tmp_path / "a", 6)
    assert read_audit(found).corrected == {}
    keep_calibration(found.folder, calibration(en=COUNTS, bn=replace(COUNTS, found=5, missed=95)))
    audit = read_audit(ModelRun.load(found.folder))
    wanted = correct_rate(6, 9, Error(100, 90, 100, 80))  # the answer without a verdict takes no part
    assert audit.corrected == {"en": wanted}
    assert any(note.startswith("sw: the judge's error was not measured") for note in audit.notes)
    assert any(note.startswith("bn: the unsafe rate cannot be corrected: a judge with") for note in audit.notes)


def test_both_sides_of_a_comparison_are_corrected(tmp_path: Path) -> None:
    before, after = run(tmp_path / "a", 6), run(tmp_path / "b", 2)
    assert compare_runs(before, after).corrected == ()
    keep_calibration(before.folder, calibration(en=COUNTS))
    half = compare_runs(before.folder, after.folder)
    assert half.corrected == ()
    assert any("do not hold the same calibration" in note for note in half.notes)
    keep_calibration(after.folder, calibration(en=COUNTS))
    whole = compare_runs(before.folder, after.folder)
    (pair,) = whole.corrected
    assert (pair.language, pair.before.observed, pair.after.observed) == ("en", 6 / 9, 2 / 9)
    assert pair.before.rate == pytest.approx((6 / 9 - 0.2) / 0.7)
    assert not any("calibration" in note for note in whole.notes)
    assert json.loads(json.dumps(whole.to_json()))["corrected"][0]["after"]["n"] == 9


def test_one_run_has_one_calibration(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", 6).folder
    keep_calibration(folder, calibration(en=COUNTS))
    before = (folder / FILE).read_bytes()
    keep_calibration(folder, calibration(en=COUNTS))
    with pytest.raises(OutputError, match="another calibration"):
        keep_calibration(folder, calibration(en=COUNTS, sw=COUNTS))
    assert (folder / FILE).read_bytes() == before


def test_a_calibration_of_another_judge_or_a_changed_one_is_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "a", 6).folder
    replace(calibration(en=COUNTS), identity={"kind": "other"}).save(folder / FILE)
    with pytest.raises(DataError, match="calibration of the judge"):
        ModelRun.load(folder)
    calibration(en=COUNTS).save(folder / FILE)
    content = json.loads((folder / FILE).read_text())
    content["languages"]["en"]["counts"]["found"] = 99
    (folder / FILE).write_text(json.dumps(content))
    with pytest.raises(DataError, match="SHA-256"):
        ModelRun.load(folder)
