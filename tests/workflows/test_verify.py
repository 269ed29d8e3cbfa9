"""`verify --deep`: an output computes what its edit makes of its sources."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.output import MANIFEST
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddDelta, AddLowRank, Copy, Operation
from polysafe.errors import CheckpointError, MismatchError
from polysafe.workflows.apply import apply_edit
from polysafe.workflows.run import run_recipe
from polysafe.workflows.verify import Depth, verify_deep
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import read_weights, tiny_model, trio, write_adapter, write_weights
from tests.real_models import BLOCKS, SMOLLM2, imported, needs

UP = "model.layers.0.mlp.up_proj.weight"
O_PROJ = "model.layers.1.self_attn.o_proj.weight"


def depth(output: Path, sources: dict[str, Path] | None = None) -> Depth:
    report, found = verify_deep(output, sources)
    assert report.ok, report.problems
    assert found is not None
    return found


def vouch(output: Path) -> None:
    """Makes the manifest say what is there, as somebody would who hides a change."""
    manifest = json.loads((output / MANIFEST).read_text())
    for entry in manifest["files"]:
        content = (output / entry["path"]).read_bytes()
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (output / MANIFEST).write_text(json.dumps(manifest))


TYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", "BF16"), ("llama", "F16"), ("llama", "F32"), ("mixtral", "BF16"), ("gpt_neox", "BF16")],
)
@pytest.mark.parametrize("method", [LAYER_SWAP, SOUP], ids=lambda method: method["method"])
def test_recipes(family: str, dtype: str, method: dict[str, Any], tmp_path: Path) -> None:
    models = trio(tmp_path, family, layers=2, shards=2, dtype=TYPES[dtype])
    run_recipe(recipe_for(models.paths, tmp_path / "out", method))
    found = depth(tmp_path / "out")
    assert found.ok
    assert found.largest == 0
    assert 0 < found.tolerance < found.logit
    steps = "64 steps of float32" if dtype == "F32" else f"one step of {dtype}"
    assert f" of the largest logit: {steps}" in found.reason


def test_another_storage_type(tmp_path: Path) -> None:
    paths = trio(tmp_path, layers=2, dtype=torch.float32).paths
    sources = {name: SourceRecord(origin=name) for name in ("sw", "safety")}
    edit = Edit(start="sw", steps={UP: (Copy(source="safety"),)}, sources=sources, dtype="F16")
    apply_edit(edit, paths, tmp_path / "out")
    found = depth(tmp_path / "out", paths)
    assert found.largest == 0
    assert "one step of F16" in found.reason


@pytest.mark.parametrize(
    "operation",
    [
        AddLowRank(rows=torch.tensor([1, 5]), a=torch.ones(2, 1), b=torch.ones(16, 1)),
        AddDelta(of="safety", minus="base", scale=0.5, columns=((4, 8),)),
    ],
    ids=["sparse edit", "head steering"],
)
def test_edits_without_a_recipe_need_their_sources_named(operation: Operation, tmp_path: Path) -> None:
    paths = trio(tmp_path, layers=2).paths
    sources = {name: SourceRecord(origin=name) for name in ("sw", *({*operation.sources} - {"sw"}))}
    edit = Edit(start="sw", steps={O_PROJ: (operation,)}, sources=sources)
    apply_edit(edit, paths, tmp_path / "out")
    with pytest.raises(CheckpointError, match="the models that it was made of are needed") as caught:
        verify_deep(tmp_path / "out")
    assert "--source sw=FOLDER" in str(caught.value.remedy)
    found = depth(tmp_path / "out", paths)
    assert found.ok
    assert found.largest == 0


def test_adapters_as_sources(tmp_path: Path) -> None:
    models = trio(tmp_path, layers=2)
    adapter = write_adapter(tmp_path / "lora", tiny_model(layers=2))
    recipe = recipe_for(models.paths, tmp_path / "out", SOUP)
    content = recipe.model_dump(mode="json")
    content["sources"]["safety"] = {"path": str(adapter), "adapter_of": "base"}
    run_recipe(type(recipe).model_validate(content))
    assert depth(tmp_path / "out").largest == 0


@pytest.fixture
def output(tmp_path: Path) -> Path:
    models = trio(tmp_path, layers=2)
    run_recipe(recipe_for(models.paths, tmp_path / "out", SOUP))
    return tmp_path / "out"


def _zero(folder: Path) -> None:
    weights = read_weights(folder)
    weights[UP].zero_()
    write_weights(folder, weights)


def _other_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))


def _nan(folder: Path) -> None:
    weights = read_weights(folder)
    weights[UP][0, 0] = float("nan")
    write_weights(folder, weights)


@pytest.mark.parametrize(
    ("change", "told"), [(_zero, "of nothing but zeros"), (_other_layers, ""), (_nan, "with NaN or infinity")]
)
def test_a_change_that_the_manifest_hides_is_found(change: Callable[[Path], None], told: str, output: Path) -> None:
    change(output)
    report, nothing = verify_deep(output)
    assert not report.ok
    assert nothing is None
    vouch(output)
    found = depth(output)
    assert not found.ok
    assert not found.largest <= found.tolerance
    assert found.tensors == ((f"1 tensor {told}: {UP}",) if told else ())
    assert json.dumps(found.to_json(), allow_nan=False)


def test_sources_that_are_others_or_gone(output: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "safety")
    with pytest.raises(CheckpointError, match="the models that it was made of are needed") as caught:
        verify_deep(output)
    assert caught.value.where == tmp_path / "safety"
    shutil.copytree(tmp_path / "base", tmp_path / "safety")
    with pytest.raises(MismatchError, match="is not the checkpoint that the edit was made for as 'safety'"):
        verify_deep(output)


def test_what_no_edit_made(output: Path, tmp_path: Path) -> None:
    (output / "polysafe" / "edit.json").unlink()
    content = json.loads((output / MANIFEST).read_text())
    content["files"] = [entry for entry in content["files"] if entry["path"] != "polysafe/edit.json"]
    (output / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="was made by no edit"):
        verify_deep(output)


@needs(SMOLLM2)
def test_a_real_model(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = imported(SMOLLM2, tmp_path_factory, blocks=BLOCKS)
    weights = read_weights(model)
    other = tmp_path / "other"
    shutil.copytree(model, other, ignore=shutil.ignore_patterns("*.safetensors*"))
    write_weights(other, {name: tensor * 1.01 for name, tensor in weights.items()})
    paths = {"safety": model, "sw": other}
    run_recipe(recipe_for(paths, tmp_path / "out", SOUP))
    assert depth(tmp_path / "out").largest == 0
    changed = read_weights(tmp_path / "out")
    changed["model.layers.3.mlp.up_proj.weight"] *= 1.1
    write_weights(tmp_path / "out", changed)
    vouch(tmp_path / "out")
    assert not depth(tmp_path / "out").ok
