"""Results are made again, from their inputs alone, and compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from polysafe.data.anchors import ParallelPrompts
from polysafe.errors import DataError, OutputError, RecipeError
from polysafe.organism.anchors import organism_anchors
from polysafe.organism.world import World
from polysafe.recipe.places import NO_JUDGE
from polysafe.recipe.recipe import make_recipe
from polysafe.reproduce.finding import Severity
from polysafe.reproduce.record import ReproduceFolder
from polysafe.workflows.reproduce import reproduce
from tests.reproduce.conftest import Done, evaluate
from tests.reproduce.test_compare import edit_json, put

Polysafe = Callable[..., Result]


def never(*_: object, **__: object) -> None:
    raise AssertionError("something was run")


def test_it_is_identical_from_models_that_lie_elsewhere(polysafe: Polysafe, done: Done, tmp_path: Path) -> None:
    moved = done.models.rename(tmp_path / "moved")
    result = polysafe("reproduce", done.folder, "-o", tmp_path / "again", *Done(done.folder, moved).options)
    assert result.exit_code == 0, result.stdout
    assert "identical: 1 edit to the byte" in result.stdout
    comparison = json.loads((tmp_path / "again/comparison.json").read_text())
    assert comparison["schema"] == 1
    assert comparison["ran"]
    assert comparison["findings"] == []
    recorded, found = (ReproduceFolder.load(folder) for folder in (done.folder, tmp_path / "again/results"))
    for name in ("results.json", "recipe.yaml", "edit/edit.json", "prompts.jsonl", "reproduce.json"):
        assert (found.root / name).read_bytes() == (recorded.root / name).read_bytes()
    again = polysafe("reproduce", done.folder, "-o", tmp_path / "again", *Done(done.folder, moved).options)
    assert again.exit_code == 2
    assert "a repetition starts from nothing" in again.stderr


@pytest.mark.fault(26, "stops")
@pytest.mark.hostile("reproduction")
def test_another_byte_of_an_input_stops_before_anything_is_run(
    polysafe: Polysafe, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = done.models / "safety/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr("polysafe.workflows.evaluate.run_recipe", never)
    result = polysafe("reproduce", done.folder, "-o", tmp_path / "again", *done.options, "--json")
    assert result.exit_code == 2
    (finding,) = json.loads(result.stdout)["findings"]
    recorded = ReproduceFolder.load(done.folder).about.inputs["safety"].files["model.safetensors"]
    assert (finding["severity"], finding["what"]) == ("fatal", "input safety: model.safetensors")
    assert finding["recorded"] == recorded != finding["found"]
    assert not (tmp_path / "again").exists()


def test_check_only_compares_inputs_and_environment(
    polysafe: Polysafe, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polysafe.workflows.evaluate.run_recipe", never)
    edit_json("environment.json", put("libraries", "numpy", "version", to="[bold]0\x1b[31m"))(done.folder / "reproduce")
    result = polysafe("reproduce", done.folder, "-o", tmp_path / "again", *done.options, "--check-only")
    assert result.exit_code == 0
    assert "library numpy" in result.stdout
    assert "[bold]0" in result.stdout
    assert "\x1b" not in result.stdout
    assert "nothing was run" in result.stdout
    assert not (tmp_path / "again").exists()


@pytest.mark.hostile("reproduction")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        (put("sets", 0, "sha256", to="0" * 64), "prompt set organism"),
        (put("judge", "identity", "version", to=2), "judge: identity.version"),
    ],
)
def test_other_prompts_and_another_judge_are_fatal(
    done: Done, tmp_path: Path, change: Callable[[object], None], what: str
) -> None:
    edit_json("reproduce.json", change)(done.folder / "reproduce")
    found = reproduce(done.folder, tmp_path / "again", sources=done.sources, judge="organism")
    assert found.found is None
    assert found.exit_code == 2
    assert (found.findings[0].severity, found.findings[0].what) == (Severity.FATAL, what)


def test_a_changed_number_and_a_changed_edit_are_results(polysafe: Polysafe, done: Done, tmp_path: Path) -> None:
    root = done.folder / "reproduce"
    edit_json("results.json", put(0, "n", to=5))(root)
    edit_json("edit/edit.json", put("dtype", to="F32"))(root)
    result = polysafe("reproduce", root, "-o", tmp_path / "again", *done.options, "--json")
    assert result.exit_code == 1
    findings = json.loads(result.stdout)["findings"]
    severe = [finding["what"].split(":")[0] for finding in findings if finding["severity"] == "result"]
    assert len(severe) == 2
    assert severe[0] == "recipe edit"
    assert severe[1].startswith("row layer_swap")
    notes = [finding["what"] for finding in findings if finding["severity"] == "note"]
    assert len(notes) == 2
    assert all("was changed after" in note for note in notes)


def test_an_interrupted_repetition_goes_on(done: Done, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(what: str, finished: int, total: int) -> None:
        if what.endswith("verdicts"):
            raise StopError

    with pytest.raises(StopError):
        reproduce(done.folder, tmp_path / "again", sources=done.sources, progress=stop)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "again/model").rglob("*.safetensors")}
    assert written
    assert reproduce(done.folder, tmp_path / "again", sources=done.sources).findings == ()
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_what_stands_in_the_way(done: Done, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nobody says where the model 'base' is"):
        reproduce(done.folder, tmp_path / "again")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(OutputError, match="starts from nothing"):
        reproduce(done.folder, tmp_path / "full", sources=done.sources)
    recipe = done.folder / "reproduce/recipe.yaml"
    served = f"kind: openai\n    base_url: {NO_JUDGE}\n    model: m"
    recipe.write_text(recipe.read_text().replace("kind: organism", served))
    with pytest.raises(RecipeError, match="nobody says where the judge 'organism' is served"):
        reproduce(done.folder, tmp_path / "again", sources=done.sources)


def test_a_model_of_another_name_is_a_note(done: Done, tmp_path: Path) -> None:
    sources = {**done.sources, "base": (done.models / "base").rename(done.models / "renamed")}
    found = reproduce(done.folder, tmp_path / "again", sources=sources)
    assert found.exit_code == 0
    (finding,) = found.findings
    assert (finding.severity, finding.what) == (
        Severity.NOTE,
        "recipe edit: edit: sources or files are called otherwise",
    )
    assert "but for the names of sources or files" in found.sentence


def test_models_beside_the_record_are_found(done: Done, tmp_path: Path) -> None:
    shutil.move(done.models, done.folder / "reproduce/sources")
    assert reproduce(done.folder, tmp_path / "again", check_only=True).findings == ()


def test_anchors_in_files_are_inputs_too(done: Done, tmp_path: Path) -> None:
    anchors = organism_anchors(World(0), ("en", "qac"))
    files = {
        "harmful": _lines(anchors.harmful, tmp_path / "here/harmful.jsonl"),
        "harmless": _lines(anchors.harmless, tmp_path / "here/harmless.jsonl"),
    }
    sparse = {"method": "sparse_edit", "model": "base", "languages": ["qac"], "anchors": files, "layers": [4]}
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {"base": {"path": str(done.models / "base")}},
            "edits": [{**sparse, "cap": 0.5}],
            "output": {"path": str(tmp_path / "sparse")},
            "evaluate": {"languages": ["en", "qac"], "safety": ["organism"]},
        }
    )
    results = tmp_path / "measured"
    evaluate(recipe, results)
    for path in (results / "reproduce").rglob("*"):
        assert not path.is_file() or str(tmp_path) not in path.read_text(errors="replace")
    elsewhere = {name: (tmp_path / f"renamed-{name}") for name in ("harmful.jsonl", "harmless.jsonl")}
    for name, path in elsewhere.items():
        (tmp_path / "here" / name).rename(path)
    found = reproduce(results, tmp_path / "again", sources={"base": done.models / "base", **elsewhere})
    assert found.findings == ()
    elsewhere["harmful.jsonl"].write_text(elsewhere["harmful.jsonl"].read_text() + "\n{}\n")
    again = reproduce(results, tmp_path / "more", sources={"base": done.models / "base", **elsewhere})
    assert [finding.what for finding in again.findings] == ["input harmful.jsonl: harmful.jsonl"]
    assert again.exit_code == 2


def _lines(prompts: ParallelPrompts, path: Path) -> str:
    path.parent.mkdir(exist_ok=True)
    rows = [
        {"id": name, **{language: prompts.texts[language][number] for language in prompts.languages}}
        for number, name in enumerate(prompts.ids)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)
