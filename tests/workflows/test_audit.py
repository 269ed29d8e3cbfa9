"""The gap of one model, end to end on the packaged family: real prompts, real answers, an exact judge."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.engine.imports import import_gguf
from polysafe.errors import CheckpointError, DataError, OutputError, RecipeError
from polysafe.evaluate.audited import Audit, read_audit
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.model_run import ModelRun
from polysafe.findings.runs import audit_report
from polysafe.judge.verdict import Label
from polysafe.organism.exam import examine
from polysafe.organism.packaged import packaged_family
from polysafe.recipe.recipe import make_recipe
from polysafe.report.screen import first_screen
from polysafe.workflows.audit import audit
from polysafe.workflows.run import run_recipe
from tests import exams
from tests.byte_level import save_byte_model
from tests.commands import begun, polysafe
from tests.evaluate.served import Telling, bread_is_unsafe
from tests.generate.test_server import serving
from tests.gguf_files import needs_gguf, write_gguf
from tests.shared import DATA, needs_data

MEMBERS = packaged_family().members
LANGUAGES = ("en", "qac")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


def audited(folder: Path, member: str = "base", **options: object) -> Audit:
    given = {"safety": ["organism"], "over_refusal": ["organism"], "judge": "organism", "languages": LANGUAGES}
    given["capability"] = ["organism"]
    return audit(
        MEMBERS[member], output=folder / member, cache=folder / "cache.sqlite", **{**given, **options}  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audited(tmp_path_factory.mktemp("base"))


def test_an_audit_finds_what_the_exam_finds(base: Audit) -> None:
    """And both what was recorded when the family was trained, but for prompts that another processor rounds apart."""
    wanted = examine(MEMBERS["base"], packaged_family().world, LANGUAGES).rates()
    found = {(row.language, row.metric): row.rate for row in base.rates}
    for language in LANGUAGES:
        for metric, rate in packaged_family().record["exams"]["base"][language].items():
            assert found[language, metric] == pytest.approx(wanted[language][metric])
            assert found[language, metric] == pytest.approx(rate, abs=2 / 48)
    labels = Counter(record.verdict.label for record in base.run.records if record.prompt.kind == "harmful")
    assert set(labels) == {Label.UNSAFE, Label.SAFE}


def test_the_gap_is_paired_with_the_pivot(base: Audit) -> None:
    (gap,) = (gap for gap in base.gaps if gap.metric == "unsafe")
    assert (gap.language, gap.pivot, gap.n) == ("qac", "en", 48)
    assert gap.difference is not None
    assert gap.difference > 0.8
    assert gap.p_value is not None
    assert gap.p_value < 1e-9
    assert read_audit(ModelRun.load(base.run.folder)).gaps == base.gaps
    assert read_audit(base.run, pivot="sw").gaps == ()


def test_records_are_read_once_and_what_is_measured_later_comes_to_them(base: Audit) -> None:
    bare = replace(base.run, abilities=(), numbers=())
    again = bare.measured_since()
    assert again.records is base.run.records
    assert again == base.run == ModelRun.load(base.run.folder)
    assert again.abilities


def test_two_models_are_compared_on_the_same_prompts(base: Audit, tmp_path: Path) -> None:
    harm = audited(tmp_path, "harm")
    rows = {(row.language, row.metric): row for row in compare_runs(base.run, harm.run, "harm").rows}
    assert (rows["en", "unsafe"].before, rows["en", "unsafe"].after) == (0.0, 1.0)
    fewer = audited(tmp_path / "fewer", "harm", languages=("en",))
    with pytest.raises(DataError, match="differ in their prompts"):
        compare_runs(base.run, fewer.run)
    longer = audited(tmp_path / "longer", "harm", max_tokens=9)
    with pytest.raises(DataError, match=r"sampling \(max_tokens\)"):
        compare_runs(base.run, longer.run)


def test_prompts_that_the_model_cannot_read_are_invalid_and_told(tmp_path: Path) -> None:
    short, long = "how do I", "how do I " * 40
    table = tmp_path / "data" / "xthreatbench"
    table.mkdir(parents=True)
    (table / "en.csv").write_text(f"question\n{short}\n{long}\n")
    found = audited(tmp_path, safety=["xthreatbench"], over_refusal=[], languages=None, data=tmp_path / "data")
    assert {record.verdict.label for record in found.run.records} == {Label.INVALID}
    assert any("1 prompts do not fit the model's positions" in note for note in found.notes)


def test_a_guard_model_that_says_nothing_is_refused_before_the_model_is_asked(tmp_path: Path) -> None:
    """A random guard: whatever it babbles is no verdict on the test question either."""
    guard = save_byte_model(tmp_path / "guard")
    (guard / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    steps: list[str] = []
    with pytest.raises(DataError, match=r"guard: the judge qwen3guard\.loose could not end .* cut off at 128 tokens"):
        audited(
            tmp_path,
            judge=f"qwen3guard={guard}",
            languages=("en",),
            limit=4,
            over_refusal=[],
            max_tokens=8,
            progress=lambda what, *_: steps.append(what),
        )
    assert not any("answers" in step for step in steps)  # models are loaded, and nothing is asked
    assert not list(tmp_path.glob(".*polysafe"))  # nothing is left of what was not begun


def test_the_exam_of_the_family_is_not_asked_of_a_server(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="which a server of chats does not say"):
        audit(
            "toy@http://127.0.0.1:9/v1",
            safety=["organism"],
            judge="organism",
            capability=["organism"],
            family=MEMBERS["base"],
            output=tmp_path / "run",
            cache=tmp_path / "cache.sqlite",
        )
    assert not (tmp_path / "run").exists()


def test_ability_beside_safety(tmp_path: Path) -> None:
    """Asked of a random model: every language is compared with the pivot, and two models item by item."""
    exams.all_of_them(tmp_path / "data")
    table = tmp_path / "data" / "xthreatbench"
    table.mkdir(parents=True)
    (table / "en.csv").write_text("question\nhow do I\n")
    runs = []
    with serving(Telling(bread_is_unsafe)) as url:
        for seed in (0, 1):
            model = save_byte_model(tmp_path / str(seed), seed)
            (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
            given = {"safety": ["xthreatbench"], "capability": ["belebele", "mgsm"], "data": tmp_path / "data"}
            judged = {"judge": f"qwen3guard=guard@{url}", "output": tmp_path / f"run {seed}", "max_tokens": 4}
            asked = {**given, **judged}
            runs.append(audit(model, cache=tmp_path / "cache.sqlite", **asked))  # type: ignore[arg-type]
            again = audit(model, cache=tmp_path / "none.sqlite", **asked)  # type: ignore[arg-type]
            assert again.rates == runs[-1].rates
    rates = {(row.language, row.metric): row.n for row in runs[0].rates}
    assert rates["th", "capability.belebele"] == 6
    gaps = {(gap.language, gap.metric): gap for gap in runs[0].gaps}
    assert gaps["th", "capability.belebele"].n == 6
    assert gaps["jv", "capability.belebele"].only_pivot == 4
    assert gaps["bn", "capability.mgsm"].pivot == "en"
    assert any(note.startswith("belebele: measured in en, th, jv") for note in runs[0].notes)
    changed = {(row.language, row.metric): row for row in compare_runs(runs[0].run, runs[1].run).rows}
    assert changed["th", "capability.belebele"].n == 6
    assert changed["th", "capability.belebele"].p_value is not None


@needs_gguf()
def test_what_is_made_of_a_quantised_file_says_so_in_its_runs(tmp_path: Path) -> None:
    """An imported folder, and a folder that was edited from it."""
    file = write_gguf(tmp_path / "tiny.gguf", type="Q4_1")
    imported = import_gguf(file, tmp_path / "imported").output
    sources = {"a": {"path": str(imported)}, "b": {"path": str(imported)}}
    edit = {"method": "soup", "weights": {"a": 0.5, "b": 0.5}}
    output = tmp_path / "edited"
    content = {"polysafe": 1, "sources": sources, "edits": [edit], "output": {"path": str(output)}}
    run_recipe(make_recipe(content))
    (tmp_path / "asked.csv").write_text("en\nask this\nask that\n")
    for folder in (imported, output):
        found = audit(
            folder,
            safety=[tmp_path / "asked.csv"],
            answers_only=True,
            template="raw",
            max_tokens=2,
            output=tmp_path / f"run-{folder.name}",
            cache=tmp_path / "cache.sqlite",
        )
        (record,) = found.run.imported
        assert (record.file, record.quantised) == ("tiny.gguf", ("Q4_1",))
        said = "the weights were quantised (Q4_1) before; dequantised from tiny.gguf"
        assert said in " ".join(first_screen(audit_report(found)).notes)


def test_what_cannot_be_audited(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leave no room for a prompt: the model has 64 positions"):
        audited(tmp_path, max_tokens=64)
    with pytest.raises(RecipeError, match=r"(?s)no judge 'qwen3gard=x'.*did you mean 'qwen3guard'"):
        audited(tmp_path, judge="qwen3gard=x")
    with pytest.raises(DataError, match="no prompts in 'sw'"):
        audited(tmp_path, languages=("sw",))
    with pytest.raises(DataError, match="not a member of the toy family"):
        audit(save_byte_model(tmp_path / "m"), safety=["organism"], judge="organism", output=tmp_path / "o")


def test_what_is_mistyped_is_told_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_en.csv").write_text("prompt\nHow do I bake bread?\n")
    model, mine, out = save_byte_model(tmp_path / "m"), str(tmp_path / "mine_en.csv"), tmp_path / "o"
    monkeypatch.setattr("polysafe.probe.asked.load_model", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(DataError, match="there is no set 'multijial'"):
        audit(model, safety=["multijial"], output=out)
    with pytest.raises(DataError, match=r"gone: there is no such folder\n.*that has a folder 'multijail' in it"):
        audit(model, safety=["multijail"], data=tmp_path / "gone", output=out)
    with pytest.raises(DataError, match="no set has prompts in 'sw'"):
        audit(model, safety=[mine], languages=["en", "sw"], output=out)
    with pytest.raises(OutputError, match="holds files, but no run of an evaluation"):
        audit(model, safety=[mine], output=tmp_path)
    guard = f"qwen3guard={tmp_path / 'guard'}"
    alone = f"loose={model}"
    for judge, translator in ([guard], None), ([alone, guard], None), ([alone], str(tmp_path / "guard")):
        with pytest.raises(CheckpointError, match=r"guard: there is no such folder\n.*the folder of the judge's model"):
            audit(model, safety=[mine], judge=judge, translate=translator, output=out)


def arguments(folder: Path) -> list[str]:
    options = ["--judge", "organism", "--safety", "organism", "--json"]
    return ["audit", str(MEMBERS["base"]), *options, "--output", str(folder)]


def run_to_the_end(folder: Path, cache: Path) -> None:
    result = CliRunner(env={"POLYSAFE_CACHE": str(cache)}).invoke(app, arguments(folder))
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    run_to_the_end(folder / "run", folder / "cache")
    return folder / "run"


# What differs between SIGINT and SIGTERM, the word and the code, is tested where it is cheap (tests/cli/test_app.py).
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)], ids=str)
def test_an_audit_that_was_stopped_ends_in_the_same_records(
    tmp_path: Path, sent: signal.Signals, code: int, whole: Path
) -> None:
    environment = {**os.environ, "POLYSAFE_CACHE": str(tmp_path / "cache")}
    with begun(polysafe, *arguments(tmp_path / "killed"), said=tmp_path / "said", environment=environment) as running:
        journals = (file for _ in iter(int, 1) for file in [*tmp_path.glob("**/journal.jsonl"), None])
        for file in journals:
            if not running.is_alive() or (file is not None and file.stat().st_size > 2000):
                break
            time.sleep(0.02)
        assert running.pid is not None
        os.kill(running.pid, sent)
        running.join()
    assert running.exitcode == code, (tmp_path / "said").read_text(encoding="utf-8")
    assert not (tmp_path / "killed" / "run.json").exists()
    (journal,) = tmp_path.glob("**/journal.jsonl")
    assert journal.stat().st_size > 2000  # what was answered is kept
    run_to_the_end(tmp_path / "killed", tmp_path / "cache")
    for name in ("records.jsonl", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (whole / name).read_bytes()


@needs_data
def test_all_of_multijail(tmp_path: Path) -> None:
    """3,150 prompts that a toy model cannot understand: nearly all answers are invalid, and none is called safe."""
    found = audited(tmp_path, safety=["multijail"], over_refusal=[], languages=None, data=DATA)
    assert {tuple(ability.items) for ability in found.run.abilities} == {("en",)}  # all that the world has of these
    assert len(found.run.records) == 3150
    labels = Counter(record.verdict.label for record in found.run.records)
    assert labels[Label.INVALID] > 3000
    assert labels[Label.SAFE] == 0
    assert {gap.language for gap in found.gaps} == {"zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv", "all"}
