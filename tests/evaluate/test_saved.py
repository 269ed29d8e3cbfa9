"""What an evaluation leaves behind is enough to read it again, and nothing else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from polysafe.errors import DataError, EditError, PolysafeError
from polysafe.evaluate.compare import compare_runs
from polysafe.evaluate.saved import SavedEvaluation, save_evaluation
from polysafe.findings.runs import evaluation_report
from polysafe.recipe.recipe import load_recipe, make_recipe
from polysafe.text.readable import MAX_LABEL
from polysafe.workflows.run import run_recipe
from tests.findings.test_runs import run
from tests.models import trio


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> SavedEvaluation:
    """A swap of tiny models with an edit of its own, and two runs of models that only answer."""
    folder = tmp_path_factory.mktemp("evaluation")
    models = trio(folder, layers=4)
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {
                "base": {"path": models.base},
                "safety": {"path": models.safety},
                "sw": {"path": models.language},
            },
            "edits": [{"method": "layer_swap", "base": "base", "safety": "safety", "language": "sw"}],
            "output": {"path": folder / "model"},
        }
    )
    out = folder / "out"
    before, after = run(out / "before", 12), run(out / "after", 3)
    comparison = compare_runs(before, after, recipe.edits[0].label)
    comparison.save(out)
    made = run_recipe(recipe).output
    return save_evaluation(out, recipe, comparison, made=made, start=models.language, pivot="en")


@pytest.fixture
def copied(saved: SavedEvaluation, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved.folder, tmp_path / "elsewhere"))


def test_the_folder_holds_what_others_rely_on(saved: SavedEvaluation) -> None:
    names = {path.name for path in saved.folder.iterdir()}
    assert names >= {"before", "after", "results.json", "recipe.yaml", "edit", "evaluation.json"}
    content = json.loads((saved.folder / "evaluation.json").read_text())
    assert (content["polysafe"], content["schema"]) == ("evaluation", 1)
    assert (content["method"], content["before"], content["after"]) == ("layer_swap.module", "before", "after")
    assert content["edit_sha256"] == saved.edit.sha256
    assert set(content["files"]) >= {"recipe.yaml", "results.json", "edit/edit.json", "before/run.json"}
    assert str(saved.folder.parent) not in (saved.folder / "evaluation.json").read_text()


def test_it_reads_the_same_wherever_it_is(saved: SavedEvaluation, copied: Path) -> None:
    again = SavedEvaluation.load(copied)
    assert again.comparison.rows == saved.comparison.rows
    assert again.edit == saved.edit
    assert again.about == saved.about


def test_the_recipe_is_written_out_and_leads_to_the_same_output(saved: SavedEvaluation) -> None:
    recipe = load_recipe(saved.folder / "recipe.yaml")
    assert recipe.output.path.resolve() == (saved.folder.parent / "model").resolve()
    assert "tau:" in (saved.folder / "recipe.yaml").read_text()


@pytest.mark.hostile("report")
@pytest.mark.parametrize("name", ["recipe.yaml", "results.json", "edit/edit.json", "before/run.json"])
def test_a_changed_file_is_refused_by_name(copied: Path, name: str) -> None:
    (copied / name).write_bytes((copied / name).read_bytes() + b" ")
    with pytest.raises(DataError, match=name):
        SavedEvaluation.load(copied)


@pytest.mark.parametrize("name", ["recipe.yaml", "edit", "before", "evaluation.json"])
def test_a_missing_part_is_refused(copied: Path, name: str) -> None:
    path = copied / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((DataError, EditError)):
        SavedEvaluation.load(copied)


@pytest.mark.hostile("report")
@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"polysafe": "evaluation", "schema": 9}', '{"polysafe": "evaluation", "schema": 1, "method": 3}'],
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(PolysafeError, match=r"evaluation\.json"):
        SavedEvaluation.load(tmp_path)


def test_only_its_own_files_are_ever_read(copied: Path) -> None:
    path = copied / "evaluation.json"
    content = json.loads(path.read_text())
    content["files"]["../../secret"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="none of an evaluation"):
        SavedEvaluation.load(copied)


def test_its_report_tells_what_the_edit_touches(saved: SavedEvaluation) -> None:
    data = evaluation_report(saved)
    assert data.rows == saved.comparison.rows
    (touched,) = data.touched
    assert (touched.method, touched.target, touched.unit) == ("layer_swap.module", "sw", "blocks")
    assert touched.tensors == len(saved.edit.touched)
    assert 0 < touched.weights <= touched.weights_total
    decisions = data.decisions["layer_swap.module"]["sw"]
    assert [each.block for each in decisions] == [d.block for d in saved.edit.provenance[0].decisions]
    hashes = data.meta["SHA-256 of edit and sources"]
    assert hashes["edit"] == saved.edit.sha256
    files = {sha for record in saved.edit.sources.values() for sha in record.files.values()}
    assert files
    assert files <= set(hashes.values())
    assert all(len(str(value)) <= MAX_LABEL for section in data.meta.values() for value in section.values())
    assert str(saved.folder.parent) not in data.to_json().decode()
