"""Sparse weight editing on tiny models: what it refuses, and how a recipe runs it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from polysafe.checkpoint.opened import Sources
from polysafe.errors import ArchitectureError, DataError, EditError, MismatchError
from polysafe.methods.registry import resolve
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.probe.capture import capture
from polysafe.probe.forward import Recorder
from polysafe.probe.model import Site, load_model
from polysafe.probe.stores import Rows
from polysafe.recipe.recipe import load_recipe
from polysafe.workflows.run import run_recipe
from tests.methods.anchors import write_anchors
from tests.methods.conftest import Opener
from tests.methods.helpers import differing, judged_by
from tests.methods.sparse_edit.tiny import LAYERS, SMALL, FakeValidator, entry, gate, prompts_of, touched
from tests.models import TinyModel, read_weights, tiny_model

# Bad input.


def test_activations_must_be_finite(opened: Opener, anchors: object, tmp_path: Path) -> None:
    model = tiny_model("llama", layers=LAYERS)
    weights = {**model.tensors, "model.layers.1.mlp.down_proj.weight": torch.full((16, 24), 3e38)}
    sources = opened({"model": TinyModel(weights, model.config).save(tmp_path / "broken")})
    with pytest.raises(DataError, match=r"layer 2.* is NaN or infinite"):
        entry(anchors).fit(sources)


def test_no_safety_neuron_is_an_error(sources: Sources, anchors: object) -> None:
    with pytest.raises(EditError, match="no safety neuron is found in layer 2"):
        entry(anchors, tau_mag=99.0, tau_stat=99.0).fit(sources)
    with pytest.raises(EditError, match="no safety neuron"):
        entry(anchors, layers=("auto",), tau_mag=99.0, tau_stat=99.0).fit_with(sources, judged_by(FakeValidator({})))


def test_two_anchors_are_needed(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        entry(write_anchors(tmp_path, harmful=1), held_out=0.0).fit(sources)


def test_a_singular_system_needs_a_ridge(sources: Sources, tmp_path: Path) -> None:
    few = write_anchors(tmp_path, harmful=2, harmless=2)
    with pytest.raises(EditError, match="singular"):
        entry(few, ridge=0.0, held_out=0.0, cap=None, tau_mag=0.5).fit(sources)


def test_every_language_needs_anchors(sources: Sources, anchors: object) -> None:
    with pytest.raises(DataError, match="no harmful prompts in 'cc'"):
        entry(anchors, languages=("aa", "cc")).fit(sources)


def test_a_tokenizer_of_another_model_is_refused(opened: Opener, anchors: object, tmp_path: Path) -> None:
    folder = tiny_model("llama", layers=LAYERS).save(tmp_path / "mixed")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: 3 * index for word, index in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(MismatchError, match="tokenizer is that of another model"):
        entry(anchors).fit(opened({"model": folder}))


def test_anchors_among_the_evaluation_are_refused_unless_forced(
    sources: Sources, anchors: dict[str, Any], tmp_path: Path
) -> None:
    first = json.loads(Path(anchors["harmful"]).read_text().splitlines()[0])
    exam = tmp_path / "exam.jsonl"
    exam.write_text(json.dumps({"id": 1, "aa": first["aa"].upper() + "!"}))
    with pytest.raises(DataError, match=r"1 anchors are among the prompts of exam.jsonl: harmful-0"):
        entry(anchors, evaluation=[exam]).fit(sources)
    forced = entry(anchors, evaluation=[exam], allow_overlap=True).fit(sources)
    assert "1 anchors are among the prompts" in forced.provenance[0].warnings[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ("en", "aa")}, "the pivot 'en' cannot be"),
        ({"layers": ("auto", 2)}, "either"),
        ({"layers": (2, 2)}, "twice"),
        ({"leave_out": "cc"}, "'cc' is not among"),
        ({"weights": {"dd": 1.0}}, "'dd' is not among"),
        ({"languages": ("aa",), "leave_out": "aa"}, "no language to edit"),
        ({"pooling": "max"}, "'last' or 'mean'"),
        ({"target_gain": 0.0}, "greater than 0"),
        ({"anchors": "elsewhere"}, "organism"),
    ],
)
def test_options_that_make_no_sense(anchors: object, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        entry(options.pop("anchors", anchors), **options)


def test_a_layer_that_does_not_exist(sources: Sources, anchors: object) -> None:
    with pytest.raises(ArchitectureError, match="there is no layer 9"):
        entry(anchors, layers=(9,)).fit(sources)


def test_only_members_of_the_family_bring_their_own_anchors(sources: Sources) -> None:
    with pytest.raises(DataError, match="not a member of the toy family"):
        entry("organism").fit(sources)


# As a recipe.


def write_recipe(folder: Path, model: Path, anchors: dict[str, Any], output: str, **options: object) -> Path:
    """A recipe whose paths of anchors are relative to its folder."""
    relative = {name: os.path.relpath(path, folder) for name, path in anchors.items()}
    fields = {"model": "model", "languages": ["aa", "bb"], "anchors": relative, **SMALL}
    recipe = {
        "polysafe": 1,
        "sources": {"model": {"path": str(model)}},
        "edits": [{"method": "sparse_edit", **fields, **options}],
        "output": {"path": output},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def test_a_recipe_runs_and_a_second_edit_of_its_result_is_refused(folder: Path, tmp_path: Path) -> None:
    anchors = write_anchors(tmp_path / "anchors")
    (tmp_path / "recipes").mkdir()
    first = load_recipe(write_recipe(tmp_path / "recipes", folder, anchors, "../out"))
    output = run_recipe(first).output
    before, after = read_weights(folder), read_weights(output)
    assert differing(before, after) == [gate(2), gate(2).replace("gate", "up")]
    again = load_recipe(write_recipe(tmp_path / "recipes", output, anchors, "../again"))
    with pytest.raises(EditError, match="edited by this method already"):
        run_recipe(again)
    assert not (tmp_path / "again").exists()
    forced = load_recipe(write_recipe(tmp_path / "recipes", output, anchors, "../forced", force=True))
    assert run_recipe(forced).output.is_dir()


def test_two_edits_of_one_recipe_are_refused(folder: Path, tmp_path: Path) -> None:
    anchors = write_anchors(tmp_path / "anchors")
    path = write_recipe(tmp_path, folder, anchors, "out")
    twice = json.loads(path.read_text())
    twice["edits"] *= 2
    path.write_text(json.dumps(twice))
    with pytest.raises(EditError, match="edited by this method already"):
        run_recipe(load_recipe(path))


def test_the_registry_knows_it() -> None:
    assert resolve("sparse_edit") is SparseEdit
    assert resolve("sparse_edit.v1") is SparseEdit


def test_labels(anchors: object) -> None:
    assert entry(anchors).label == "sparse_edit.published"
    assert entry(anchors, target_gain=2.0).label == "sparse_edit"
    assert entry(anchors, layers=(1, 2)).label == "sparse_edit"
    assert entry(anchors, layers=("auto",), max_layers=3).label == "sparse_edit"
    assert entry(anchors, control="random", control_seed=7).label == "control.sparse_edit.random.7"


def test_recorder_and_capture_agree_on_the_last_token(sources: Sources, anchors: object) -> None:
    """Left padding, right padding and none give the rows that edits are fitted to."""
    loaded, prompts = load_model(sources["model"]), prompts_of(sources, anchors, "bb")
    expected = capture(loaded, prompts, [2], into=Rows(), batch_size=1)[2]
    for side in ("left", "right"):
        with Recorder(loaded, {2: loaded.module(2, Site.MLP)[0]}, "last", side) as recorder:
            rows = recorder.rows(prompts, range(len(prompts)))[2]
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"set": "polyrefuse.train", "limit": 0}, "greater than or equal to 1"),
        ({"set": "a b"}, "is no set"),
        ({"set": "polyrefuse.train", "langages": ["en"]}, "langages"),
        ({"harmful": {"set": "xsafety"}}, "harmless"),
    ],
)
def test_anchors_that_make_no_sense(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        entry(given)


def test_anchors_of_sets_are_written_and_read_again(tmp_path: Path) -> None:
    for given in (
        {"set": "polyrefuse.train", "languages": ["en", "th"], "limit": 50},
        {"harmful": {"set": "xsafety"}, "harmless": {"set": str(tmp_path / "mine.csv")}},
        {"harmful": str(tmp_path / "h.parquet"), "harmless": {"set": "polyrefuse.harmless.train"}},
    ):
        method = entry(given)
        assert SparseEdit.model_validate(method.model_dump(mode="json")) == method


def test_tables_without_ids_are_anchors(sources: Sources, tmp_path: Path) -> None:
    """The same rows as a CSV with a header only give the same edit."""
    named = write_anchors(tmp_path)
    plain = {}
    for kind, path in named.items():
        rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
        table = "\n".join(["en,aa,bb", *(",".join(row[name] for name in ("en", "aa", "bb")) for row in rows)])
        (tmp_path / f"{kind}.csv").write_text(table)
        plain[kind] = str(tmp_path / f"{kind}.csv")
    one, other = (touched(entry(given, held_out=0.0).fit(sources)) for given in (named, plain))
    assert all(torch.equal(one[name].a, other[name].a) for name in one)
