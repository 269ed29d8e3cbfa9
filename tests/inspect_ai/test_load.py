"""Logs of Inspect as runs: the same bytes where we wrote them, and a clear refusal where they are not ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, EvalPlanStep, edit_score, write_eval_log
from inspect_ai.model import ChatMessageUser
from inspect_ai.scorer import ScoreEdit

from polysafe.errors import DataError, OutputError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.model_run import ModelRun
from polysafe.inspect_ai.export import export_run
from polysafe.inspect_ai.load import import_run
from polysafe.judge.calibrate import Calibration, Counts
from tests.checkpoint.raw import snapshot
from tests.evaluate.fakes import FakeJudge
from tests.inspect_ai.helpers import read, run_of


@pytest.fixture
def run(tmp_path: Path) -> ModelRun:
    made = run_of(tmp_path / "run", lambda text: "\udc80 <unsafe>" if " 3 " in text else "<safe> cut")
    Ability("mgsm", {"en": {"0": True}, "sw": {"0": False}}, {"shots": 0}, {"weights": "a"}, ("n",)).save(made.folder)
    return ModelRun.load(made.folder)


def changed(path: Path, change: Callable[[EvalLog], Any]) -> Path:
    """A copy of a log that someone changed and Inspect wrote again."""
    log = read(path)
    change(log)
    other = path.with_name(f"changed-{path.name}")
    write_eval_log(log, str(other))
    return other


def test_an_exported_run_comes_back_byte_for_byte(run: ModelRun, tmp_path: Path) -> None:
    logs = export_run(run, tmp_path / "logs")
    again = import_run(logs[::-1], tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(run.folder)
    assert again.abilities == run.abilities
    assert import_run(logs, tmp_path / "again") == again


def test_a_calibration_goes_along(run: ModelRun, tmp_path: Path) -> None:
    judge = FakeJudge()
    known = Calibration(judge.name, judge.identity, {"en": Counts(90, 10, 95, 5)}, "0" * 64)
    keep_calibration(run.folder, known)
    loaded = ModelRun.load(run.folder)
    logs = export_run(loaded, tmp_path / "logs")
    import_run(logs, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(run.folder)
    results = read(logs[0]).results
    assert results is not None
    corrected = {score.name: score.metrics["unsafe_corrected"].value for score in results.scores
                 if "unsafe_corrected" in score.metrics}  # fmt: skip
    assert corrected == {"en": loaded.corrected["en"].rate}
    forged = {**known.as_json(), "examples_sha256": "1" * 64}
    path = changed(logs[0], lambda log: set_ours(log, calibration=forged))
    with pytest.raises(DataError, match="calibration: differs from what was written"):
        import_run([path], tmp_path / "forged")


def test_one_set_of_a_run_is_a_run(run: ModelRun, tmp_path: Path) -> None:
    logs = export_run(run, tmp_path / "logs")
    harmless = import_run(logs[1:2], tmp_path / "harmless")
    assert [one["name"] for one in harmless.about["sets"]] == ["fine"]
    assert harmless.records == tuple(record for record in run.records if record.prompt.kind == "harmless")
    assert harmless.abilities == ()


def test_logs_that_inspect_wrote_again_are_read(run: ModelRun, tmp_path: Path) -> None:
    """Also in Inspect's other format."""
    logs = export_run(run, tmp_path / "logs")
    copies = []
    for path in logs:
        copies.append(path.with_suffix(".json"))
        write_eval_log(read(path), str(copies[-1]))
    import_run(copies, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(run.folder)


def set_samples(log: EvalLog, **values: Any) -> None:
    for name, value in values.items():
        setattr((log.samples or [])[0], name, value)


def set_ours(log: EvalLog, **values: Any) -> None:
    assert log.eval.metadata is not None
    log.eval.metadata["polysafe"].update(values)


def relabel(log: EvalLog) -> None:
    edit_score(log, (log.samples or [])[0].id, "verdict", ScoreEdit(value="safe"), recompute_metrics=False)


def overwrite(log: EvalLog) -> None:
    for sample in log.samples or ():
        if "record" in sample.metadata and sample.scores:
            sample.scores["verdict"].value = "safe"


def drop(log: EvalLog) -> None:
    assert log.samples is not None
    del log.samples[2]


def judged_anew(log: EvalLog) -> None:
    for sample in log.samples or ():
        assert sample.scores is not None
        metadata = sample.scores["verdict"].metadata
        assert metadata is not None
        metadata["judge_sha256"] = "0" * 64


@pytest.mark.hostile("log")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda log: setattr(log.eval, "metadata", {}), "is no log of polysafe, but of the task 'polysafe/trial'"),
        (lambda log: setattr(log.eval, "metadata", {"polysafe": "yes"}), "is no log of polysafe"),
        (lambda log: set_ours(log, schema=9), "has schema 9"),
        (lambda log: set_ours(log, judge=None), "does not hold what a log of polysafe holds"),
        (lambda log: set_ours(log, set={"name": "trial"}), "does not hold what a log of polysafe holds"),
        (lambda log: setattr(log, "status", "error"), "did not end well: its status is 'error'"),
        (lambda log: setattr(log, "invalidated", True), "was declared invalid"),
        (lambda log: setattr(log.eval.config, "epochs", 2), "has 2 answers for each prompt"),
        (
            lambda log: log.plan.steps.insert(0, EvalPlanStep(solver="chain_of_thought")),
            "solvers chain_of_thought, gen",
        ),
        (drop, "lacks 1 prompts, first 'trial/"),
        (relabel, "has a score that the log's judge did not give"),
        (judged_anew, "has a score that the log's judge did not give"),
        (overwrite, "is shown otherwise than it was recorded"),
        (lambda log: set_samples(log, scores={}), "has no answer and verdict of ours"),
        (lambda log: set_samples(log, input=[ChatMessageUser(content="more")]), "was asked more than the prompt"),
        (lambda log: set_samples(log, metadata={}), "does not have|cannot be None"),
    ],
)
def test_logs_that_are_no_whole_run_of_ours(
    run: ModelRun, tmp_path: Path, change: Callable[[EvalLog], Any], problem: str
) -> None:
    path = changed(export_run(run, tmp_path / "logs")[0], change)
    with pytest.raises(DataError, match=problem) as caught:
        import_run([path], tmp_path / "again")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "again").exists()


@pytest.mark.hostile("log")
def test_files_that_are_no_logs(run: ModelRun, tmp_path: Path) -> None:
    for name, content in (
        ("a.eval", b"PK\x03\x04 and no more"),
        ("b.json", b"{"),
        ("c.txt", b"words"),
        ("d.eval", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as a log of Inspect"):
            import_run([tmp_path / name], tmp_path / "again")
    with pytest.raises(DataError, match="there is no such file"):
        import_run([tmp_path / "none.eval"], tmp_path / "again")
    with pytest.raises(DataError, match="there is no log of a prompt set"):
        import_run(export_run(run, tmp_path / "logs")[2:], tmp_path / "again")


def test_logs_of_different_runs_do_not_mix(run: ModelRun, tmp_path: Path) -> None:
    other = run_of(tmp_path / "other", judge=FakeJudge(identity={"model": "k"}), name="other")
    harmful, harmless = export_run(run, tmp_path / "one")[0], export_run(other, tmp_path / "two")[1]
    with pytest.raises(DataError, match="differ in model, judge"):
        import_run([harmful, harmless], tmp_path / "again")


def test_an_output_with_other_answers_is_refused(run: ModelRun, tmp_path: Path) -> None:
    other = run_of(tmp_path / "other", lambda text: "<unsafe>")
    import_run(export_run(run, tmp_path / "one")[:2], tmp_path / "again")
    before = snapshot(tmp_path / "again")
    with pytest.raises(OutputError, match="its answers differ"):
        import_run(export_run(other, tmp_path / "two"), tmp_path / "again")
    assert snapshot(tmp_path / "again") == before
