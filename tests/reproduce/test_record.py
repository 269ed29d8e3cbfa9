"""The folder itself: what is in it, what is not, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from polysafe.edits.edit import Edit
from polysafe.errors import DataError, OutputError
from polysafe.evaluate.ability import Ability
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.model_run import ModelRun
from polysafe.recipe.recipe import load_recipe
from polysafe.reproduce.evaluation import record_evaluation
from polysafe.reproduce.record import ReproduceFolder
from tests.reproduce.conftest import SOURCES, Done, evaluate, secrets_of_this_machine, swap_recipe


def test_the_record_has_everything_and_its_hashes_are_those_of_the_files(once: Done) -> None:
    folder = ReproduceFolder.load(once.folder)
    assert folder.about.inputs.keys() == set(SOURCES)
    for name, each in folder.about.inputs.items():
        assert (each.hub, each.packaged) == (None, None)
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= each.files.keys()
        for file, digest in each.files.items():
            assert digest == hashlib.sha256((once.models / name / file).read_bytes()).hexdigest()
    (step,) = folder.about.steps
    model = once.folder.parent / "out"
    assert step.output.keys() == {path.name for path in model.iterdir() if path.is_file()} - {"README.md"}
    for file, digest in step.output.items():
        assert digest == hashlib.sha256((model / file).read_bytes()).hexdigest()
    edit = Edit.load(folder.root / step.edit)
    assert edit.sha256 == step.edit_sha256 == Edit.load(model / "polysafe").sha256
    assert folder.recipe(step).edits == load_recipe(model / "polysafe/recipe.yaml").edits
    assert (folder.root / "results.json").read_bytes() == (once.folder / "results.json").read_bytes()


def test_prompts_and_answers_are_there_as_hashes_only(once: Done) -> None:
    run = ModelRun.load(once.folder / "after")
    folder = ReproduceFolder.load(once.folder)
    prompts = [json.loads(line) for line in (folder.root / "prompts.jsonl").read_text().splitlines()]
    assert {row["id"]: row["sha256"] for row in prompts} == {
        record.prompt.id: hashlib.sha256(record.prompt.text.encode()).hexdigest() for record in run.records
    }
    everything = b"".join(path.read_bytes() for path in folder.root.rglob("*") if path.is_file())
    for record in run.records:
        assert record.prompt.text.encode() not in everything
        assert record.completion.text.encode() not in everything
    (judged,) = (each for each in folder.about.runs if each.name == "after")
    assert len(folder.verdicts(judged)) == len(run.records)
    assert judged.records == hashlib.sha256((once.folder / "after/records.jsonl").read_bytes()).hexdigest()


def test_no_file_tells_whose_machine_it_was(once: Done) -> None:
    secrets = ["secret-user", str(Path(__file__).parents[2]), *secrets_of_this_machine()]
    for path in (once.folder / "reproduce").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert [secret for secret in secrets if secret in text] == []


def test_abilities_are_recorded_item_by_item(once: Done, done: Done) -> None:
    for name in ("before", "after"):
        Ability("mgsm", {"en": {"1": True, "2": name == "before"}}, {"shots": 0}).save(done.folder / name)
    comparison = compare_runs(done.folder / "before", done.folder / "after")
    recipe = swap_recipe(once.models, once.folder.parent / "out")
    folder = ReproduceFolder.load(record_evaluation(recipe, comparison, {}, done.folder))
    assert folder.about.abilities == {"mgsm": {"shots": 0}}
    before, after = (folder.verdicts(run) for run in folder.about.runs)
    assert before["capability.mgsm/2/en"][0] == "right"
    assert after["capability.mgsm/2/en"][0] == "wrong"


def test_sums_are_those_of_sha256sum(once: Done) -> None:
    root = once.folder / "reproduce"
    lines = (root / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in lines} == {
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and path.name != "SHA256SUMS"
    }
    for line in lines:
        digest, name = line.split("  ")
        assert digest == hashlib.sha256((root / name).read_bytes()).hexdigest()


def test_the_page_gives_the_command_and_says_that_toys_are_toys(once: Done) -> None:
    page = (once.folder / "reproduce/README.md").read_text()
    assert "polysafe reproduce . --source base=FOLDER" in page
    assert "no evidence about any real model" in page


def test_evaluating_again_writes_the_same_record(done: Done) -> None:
    before = {path: path.read_bytes() for path in (done.folder / "reproduce").rglob("*") if path.is_file()}
    shutil.rmtree(done.folder / "before")
    shutil.rmtree(done.folder / "after")
    evaluate(swap_recipe(done.models, done.folder.parent / "out"), done.folder)
    assert {path: path.read_bytes() for path in (done.folder / "reproduce").rglob("*") if path.is_file()} == before
    assert [path for path in done.folder.iterdir() if path.name.startswith(".reproduce")] == []


def test_nothing_half_written_stays_when_the_disk_is_full(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    before = {path: path.read_bytes() for path in (done.folder / "reproduce").rglob("*") if path.is_file()}
    monkeypatch.setattr("polysafe.reproduce.write.write_bytes_atomic", full)
    with pytest.raises(OutputError, match="disk is full"):
        evaluate(swap_recipe(done.models, done.folder.parent / "out"), done.folder)
    assert {path: path.read_bytes() for path in (done.folder / "reproduce").rglob("*") if path.is_file()} == before
    assert [path for path in done.folder.iterdir() if path.name.startswith(".reproduce")] == []


@pytest.mark.hostile("reproduction")
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("reproduce.json", '"schema": 1', '"schema": 2', r"has schema 2.*\n.*pip install 'polysafe==0"),
        ("reproduce.json", '"reproduction"', '"something"', "is no record of a result"),
        ("reproduce.json", '"recipe.yaml"', '"../recipe.yaml"', r"steps.0.recipe: .*pattern"),
        ("reproduce.json", '"base": {', '"../base": {', r"inputs\.\.\./base.*pattern"),
        ("reproduce.json", '"packaged": null', '"packaged": "../../.."', r"inputs.base.packaged: .*pattern"),
        ("reproduce.json", '"edit": "edit"', '"edit": "/etc"', r"steps.0.edit: .*pattern"),
        ("reproduce.json", '"records/after.jsonl"', '"records/../x.jsonl"', r"runs.1.file: .*pattern"),
        ("reproduce.json", '"kind": "evaluate"', '"kind": "shell"', "kind"),
        ("reproduce.json", '"polysafe"', '"polysafe', "is not"),
        (
            "environment.json",
            '"schema": 1',
            '"schema": 9',
            "has schema 9, this polysafe reads schema 1",
        ),
    ],
)
def test_records_that_are_refused(done: Done, name: str, old: str, new: str, message: str) -> None:
    path = done.folder / "reproduce" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        ReproduceFolder.load(done.folder)


def test_a_folder_without_a_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no reproduce\.json"):
        ReproduceFolder.load(tmp_path)


def test_verdicts_that_are_none(recorded: ReproduceFolder) -> None:
    run = recorded.about.runs[0]
    (recorded.root / run.file).write_text('["no verdict"]\n')
    with pytest.raises(DataError, match="no list of verdicts"):
        recorded.verdicts(run)
