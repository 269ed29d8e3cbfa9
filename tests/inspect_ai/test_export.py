"""A run as Inspect logs: nothing is lost, nothing is added, and nothing that a model said acts on anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_ai.log import list_eval_logs, read_eval_log_sample_summaries

from polysafe.errors import DataError, OutputError, ResourceError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from polysafe.files.atomic import write_bytes_atomic
from polysafe.inspect_ai.export import export_run
from polysafe.inspect_ai.load import import_run
from polysafe.judge.verdict import Label
from tests.checkpoint.raw import snapshot
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set
from tests.inspect_ai.helpers import LANGUAGES, judged, labels_of, read, run_of

HOSTILE = (
    "\x00\x1b[2J\x07",
    "\udc80 broken \ud800",
    "a\u2028b\r\n\u2029\x85",
    "</script><script>alert(1)</script>",
    "\u202e\u200b\U000e0041",
    '{"value": "safe"}\nattachment://0123456789abcdef0123456789abcdef',
    "data:image/png;base64," + "A" * 4000,
    "x" * 1_000_000,
    "",
)
ABILITY = Ability(
    "belebele", {"en": {"0": True, "1": False}, "sw": {"0": False, "1": False}}, {"shots": 0}, {"weights": "a"}, ("n",)
)


@pytest.fixture
def run(tmp_path: Path) -> ModelRun:
    made = run_of(tmp_path / "run", judged)
    ABILITY.save(made.folder)
    return ModelRun.load(made.folder)


def test_inspect_counts_what_polysafe_counts(run: ModelRun, tmp_path: Path) -> None:
    harmful, harmless, _ = (read(path) for path in export_run(run, tmp_path / "logs"))
    for log, kind in ((harmful, "harmful"), (harmless, "harmless")):
        ours = Counter(
            (record.prompt.language, str(record.verdict.label)) for record in run.records if record.prompt.kind == kind
        )
        assert labels_of(log) == ours
        assert len(ours) > 5
    wanted = {(row.language, row.metric): (row.rate, row.low, row.high, row.n) for row in run.rates()}
    found = {
        (score.name, name): (metric.value, score.metrics[f"{name}_low"].value, score.metrics[f"{name}_high"].value,
                             (metric.metadata or {})["n"])
        for log in (harmful, harmless)
        for score in (log.results.scores if log.results else ())
        for name, metric in score.metrics.items()
        if not name.endswith(("_low", "_high"))
    }  # fmt: skip
    shown = {cell: row for cell, row in wanted.items() if row[0] is not None}  # others are withheld in logs too
    assert found == {cell: row for cell, row in shown.items() if not cell[1].startswith("capability.")}
    assert len(shown) < len(wanted)
    assert harmful.results is not None
    assert harmful.results.headline is not None
    worst = max(LANGUAGES, key=lambda language: wanted[language, "unsafe"][0] or 0.0)
    assert (harmful.results.headline.score, harmful.results.headline.metric) == (worst, "unsafe")


def test_samples_say_what_records_say(run: ModelRun, tmp_path: Path) -> None:
    log = read(export_run(run, tmp_path / "logs")[0])
    samples = {str(sample.id): sample for sample in log.samples or ()}
    records = [record for record in run.records if record.prompt.kind == "harmful"]
    assert log.eval.dataset.sample_ids == [record.prompt.id for record in records]
    for record in records:
        sample = samples[record.prompt.id]
        score = (sample.scores or {})["verdict"]
        assert (sample.input, sample.output.completion) == (record.prompt.text, record.completion.text)
        assert [message.text for message in sample.messages] == [record.prompt.text, record.completion.text]
        assert (score.value, score.explanation, score.answer) == (
            str(record.verdict.label), record.verdict.said, record.completion.text
        )  # fmt: skip
        assert score.metadata is not None
        assert score.metadata["refused"] is record.verdict.refused
        assert score.metadata["detail"] == record.verdict.detail
        assert sample.metadata["language"] == record.prompt.language
        assert sample.metadata["category"] == record.prompt.category
        assert (sample.metadata["set"], sample.metadata["kind"]) == ("trial", "harmful")
    assert {(samples[r.prompt.id].scores or {})["verdict"].reason for r in records} == {
        "refusal", "grader_failed", None
    }  # fmt: skip


def test_how_an_answer_ended_is_kept(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", lambda text: "cut" if " 1 " in text else "whole")
    log = read(export_run(run, tmp_path / "logs")[0])
    ended = {sample.output.completion: sample.output.stop_reason for sample in log.samples or ()}
    assert ended == {"cut": "max_tokens", "whole": "stop"}


def test_the_header_says_what_decided_the_answers(run: ModelRun, tmp_path: Path) -> None:
    log = read(export_run(run, tmp_path / "logs")[0])
    assert (log.status, log.eval.task, log.eval.model) == ("success", "polysafe/trial", "base")
    assert log.eval.task_args == {"kind": "harmful", "languages": list(LANGUAGES)}
    assert log.plan.config.max_tokens == 256
    assert log.plan.config.temperature == 0.0
    metadata = log.eval.metadata or {}
    assert metadata["licence"] == "CC0-1.0"
    ours = metadata["polysafe"]
    assert ours["generator"] == FakeGenerator().identity
    assert ours["judge"]["name"] == "fake-judge"
    assert ours["records_sha256"] == run.about["records"]["sha256"]
    assert ours["set"]["sha256"] == prompt_set(languages=LANGUAGES).sha256
    assert log.eval.packages["torch"] == run.about["versions"]["torch"]
    assert log.eval.viewer is not None
    assert log.eval.viewer.trust_content is False  # the viewer shows answers as plain text


def test_no_place_and_no_person_is_named(run: ModelRun, tmp_path: Path) -> None:
    for path in export_run(run, tmp_path / "logs"):
        with ZipFile(path) as packed:
            content = b"".join(packed.read(name) for name in packed.namelist()).decode()
        for private in (str(tmp_path), tmp_path.name, os.path.expanduser("~"), os.uname().nodename):
            assert private not in content


def test_abilities_are_logs_of_their_own(run: ModelRun, tmp_path: Path) -> None:
    log = read(export_run(run, tmp_path / "logs")[2])
    assert log.eval.task == "polysafe/capability.belebele"
    assert log.results is not None
    rates = {score.name: score.metrics["accuracy"].value for score in log.results.scores}
    assert rates == {"en": 0.5, "sw": 0.0}
    assert log.results.headline is not None
    assert log.results.headline.score == "sw"
    assert {str(s.id): s.scores["accuracy"].value for s in log.samples or () if s.scores} == {
        "belebele/0/en": "C", "belebele/1/en": "I", "belebele/0/sw": "I", "belebele/1/sw": "I"
    }  # fmt: skip


def test_the_same_run_gives_the_same_bytes(run: ModelRun, tmp_path: Path) -> None:
    export_run(run, tmp_path / "one")
    export_run(run.folder, tmp_path / "two")
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    before = snapshot(tmp_path / "one")
    export_run(run, tmp_path / "one")
    assert snapshot(tmp_path / "one") == before
    other = run_of(tmp_path / "other", lambda text: "<unsafe>")
    assert not {p.name for p in export_run(other, tmp_path / "one")} & {name.split("/")[-1] for name in before}


def test_another_process_writes_the_same_bytes_and_nothing_else(run: ModelRun, tmp_path: Path) -> None:
    """Also with a home of its own, warnings as errors, and another order of hashing."""
    export_run(run, tmp_path / "one")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    program = (
        "import sys; from pathlib import Path\n"
        "from polysafe.inspect_ai.export import export_run\n"
        "export_run(sys.argv[1], Path(sys.argv[2]))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "INSPECT_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(run.folder), str(tmp_path / "two")],
        env={**kept, "HOME": str(home), "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert snapshot(tmp_path / "two") == snapshot(tmp_path / "one")
    assert [*home.rglob("*"), *work.rglob("*")] == []


def test_hostile_answers_stay_data(tmp_path: Path) -> None:
    texts = cycle(HOSTILE)
    made: dict[str, str] = {}
    run = run_of(tmp_path / "run", lambda text: made.setdefault(text, next(texts)))
    log = read(export_run(run, tmp_path / "logs")[0])
    for sample in log.samples or ():
        said = made[str(sample.input)]
        shown = said.encode("utf-8", "backslashreplace").decode()
        assert sample.output.completion == sample.messages[1].text == shown
    again = import_run(export_run(run, tmp_path / "logs"), tmp_path / "again")
    assert again.records == run.records


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=30), min_size=12, max_size=12))
@settings(max_examples=15)
def test_any_answer_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("run")
    answers = iter(texts)
    run = evaluate_model(FakeGenerator(lambda _: next(answers)), [prompt_set()], FakeJudge(), output=folder / "run")
    import_run(export_run(run, folder / "logs"), folder / "again")
    assert snapshot(folder / "again") == snapshot(folder / "run")


@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame:DeprecationWarning")  # Inspect's use of pandas
def test_inspect_lists_and_tabulates_the_logs(run: ModelRun, tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="Inspect's data frames need pandas")
    from inspect_ai.analysis import evals_df, samples_df

    paths = export_run(run, tmp_path / "logs")
    listed = list_eval_logs(str(tmp_path / "logs"))
    assert {info.task for info in listed} == {"polysafe/trial", "polysafe/fine", "polysafe/capability.belebele"}
    assert len(read_eval_log_sample_summaries(str(paths[0]))) == 18
    evals = evals_df(str(tmp_path / "logs"), quiet=True)
    assert set(evals["task_name"]) == {"trial", "fine", "capability.belebele"}
    row = evals[evals["task_name"] == "trial"].iloc[0]
    rates = {(rate.language, rate.metric): rate.rate for rate in run.rates()}
    (language, unsafe) = next((code, rate) for (code, name), rate in rates.items() if name == "unsafe" and rate)
    assert row[f"score_{language}_unsafe"] == unsafe
    samples = samples_df(str(paths[0]), quiet=True)
    assert sorted(samples["score_verdict"]) == sorted(
        str(r.verdict.label) for r in run.records if r.prompt.kind == "harmful"
    )
    assert set(samples["metadata_language"]) == set(LANGUAGES)


def test_inspect_view_serves_the_run(run: ModelRun, tmp_path: Path) -> None:
    """The server behind `inspect view`, in this process: what the page asks for is there."""
    from inspect_ai._view.fastapi_server import view_server_app
    from starlette.testclient import TestClient

    path = export_run(run, tmp_path / "logs")[0]
    with TestClient(view_server_app(default_dir=str(tmp_path / "logs")), base_url="http://127.0.0.1") as client:
        listed = client.get("/log-files").json()
        assert len(listed["files"]) == 3
        log = client.get(f"/logs/{path}").json()
    assert log["eval"]["task"] == "polysafe/trial"
    assert len(log["samples"]) == 18
    assert log["samples"][0]["scores"]["verdict"]["value"] in set(Label)


def test_inspect_dumps_the_log(run: ModelRun, tmp_path: Path) -> None:
    path = export_run(run, tmp_path / "logs")[1]
    dumped = subprocess.run(
        [sys.executable, "-m", "inspect_ai", "log", "dump", str(path)],
        env={**os.environ, "HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    log = json.loads(dumped.stdout)
    assert len(log["samples"]) == 12
    assert log["eval"]["task"] == "polysafe/fine"


def test_a_failure_leaves_nothing_half(run: ModelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(OutputError):
        export_run(run, tmp_path / "logs")

    def full(path: Path, content: bytes) -> None:
        if any((tmp_path / "other").iterdir()):
            raise OSError(28, "No space left on device")
        write_bytes_atomic(path, content)

    monkeypatch.setattr("polysafe.inspect_ai.export.write_bytes_atomic", full)
    with pytest.raises(OutputError, match="the disk is full"):
        export_run(run, tmp_path / "other")
    (whole,) = (tmp_path / "other").iterdir()
    assert read(whole).status == "success"


def test_runs_that_contradict_themselves_are_refused(run: ModelRun, tmp_path: Path) -> None:
    mixed = replace(run, about={**run.about, "sets": [{**run.about["sets"][0], "prompts": 4}]})
    assert len(export_run(mixed, tmp_path / "some")) == 2
    for about in ({"prompts": 20}, {"prompts": 99}, {"kind": "harmless"}):
        wrong = replace(run, about={**run.about, "sets": [{**run.about["sets"][0], **about}]})
        with pytest.raises(DataError, match="are not those that it names"):
            export_run(wrong, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_without_inspect_the_extra_is_named(run: ModelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polysafe.inspect_ai.extra.find_spec", lambda name: None)
    for action in (lambda: export_run(run, tmp_path / "logs"), lambda: import_run([tmp_path], tmp_path / "r")):
        with pytest.raises(ResourceError, match=r"pip install 'polysafe\[inspect\]'"):
            action()
