"""A recipe's edit and what it has to beat, with one command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaModel
from typer.testing import CliRunner

from polysafe.cli.app import app
from polysafe.edits.edit import Edit
from polysafe.engine.plan import make_plan
from polysafe.engine.write import with_digests
from polysafe.errors import RecipeError
from polysafe.methods.head_steering.method import HeadSteering
from polysafe.methods.sparse_edit.method import SparseEdit
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.workflows.apply import load_edit
from polysafe.workflows.controls import write_controls
from tests.byte_level import save_byte_model
from tests.methods.anchors import write_anchors
from tests.models import tiny_model


def recipe(folder: Path, *edits: dict[str, Any]) -> Recipe:
    base = tiny_model("llama")
    models = {"m": base, "h": base.updated(1, lambda _: 0.3)}
    return recipe_of(folder, {name: model.save(folder / name) for name, model in models.items()}, *edits)


def recipe_of(folder: Path, models: Mapping[str, Path], *edits: dict[str, Any]) -> Recipe:
    sources = {name: {"path": str(path)} for name, path in models.items()}
    output = {"path": str(folder / "out")}
    return make_recipe({"polysafe": 1, "sources": sources, "edits": list(edits), "output": output})


STEER = {"method": "head_steering", "model": "m", "harmful": "h", "languages": ["sw"], "ranking": "norm", "count": 3}


def test_all_controls_of_head_steering(tmp_path: Path) -> None:
    written = dict(write_controls(recipe(tmp_path, STEER), tmp_path / "edits", draws=2))
    assert len(written) == 1 + 2 * (2 + 2 + 2)
    evidence = {label: Edit.load(folder).provenance[0].evidence for label, folder in written.items()}
    chosen = evidence["head_steering.norm"]
    moved = chosen["strength"] * chosen["selected_norm"]
    for label, found in evidence.items():
        assert len(found["heads"]) == (16 if ".all" in label else 3)
        if label.endswith(".matched"):
            assert found["strength"] * found["selected_norm"] == pytest.approx(moved, rel=1e-6)
    assert not (tmp_path / "out").exists()
    assert {label: Edit.load(folder).sha256 for label, folder in written.items()} == {
        label: Edit.load(folder).sha256
        for label, folder in write_controls(recipe(tmp_path, STEER), tmp_path / "again", draws=2)
    }


def test_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe(tmp_path, STEER).to_yaml())
    result = CliRunner().invoke(
        app, ["edit", "controls", str(file), "-o", str(tmp_path / "e"), "--draws", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert all((Path(folder) / "edit.json").is_file() for folder in json.loads(result.stdout).values())


def test_methods_without_a_choice_have_no_controls(tmp_path: Path) -> None:
    soup = {"method": "soup", "weights": {"m": 0.5, "h": 0.5}, "start_from": "m"}
    for edits in ([soup], [STEER, STEER]):
        with pytest.raises(RecipeError, match="controls belong to one edit"):
            list(write_controls(recipe(tmp_path, *edits), tmp_path / "edits"))


SPARSE = {
    "method": "sparse_edit",
    "model": "m",
    "languages": ["aa", "bb"],
    "layers": [1],
    "tau_mag": 0.7,
    "tau_stat": 0.3,
    "cap": 0.3,
    "rank": 4,
    "template": "raw",
}
MEASURED_HEADS = {
    **{key: value for key, value in STEER.items() if key != "ranking"},
    "languages": ["te", "sw"],
    "tasks": {"names": ["successor"]},
    "prompts": 2,
    "shots": 2,
    "allow_unrelated_base": True,  # two random models
}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shape of the token ids of every forward pass."""
    seen: list[tuple[int, ...]] = []
    forward = LlamaModel.forward

    def counted(self: LlamaModel, *arguments: Any, **options: Any) -> Any:
        seen.append(tuple(options["input_ids"].shape))
        return forward(self, *arguments, **options)

    monkeypatch.setattr(LlamaModel, "forward", counted)
    return seen


def alone_sha256(given: Recipe, method: Any) -> str:
    """Hash of one method's edit, with the hashes of the models that it is for."""
    plan = make_plan(given.model_copy(update={"edits": (method,)}))
    return with_digests(plan.edit, plan.job.checkpoints).sha256


def test_controls_are_for_the_models_of_the_recipe_only(tmp_path: Path) -> None:
    for folder in dict(write_controls(recipe(tmp_path, STEER), tmp_path / "edits", draws=1)).values():
        assert all(record.files for record in load_edit(folder).sources.values())


@pytest.mark.parametrize("case", ["sparse", "gated", "heads"])
def test_all_controls_come_from_one_measurement(
    tmp_path: Path, passes: list[tuple[int, ...]], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each is the edit that it is alone."""
    if case == "heads":
        folders = {name: save_byte_model(tmp_path / name, seed) for seed, name in enumerate(("m", "h"))}
        given = recipe_of(tmp_path, folders, MEASURED_HEADS)
    else:
        folders = {"m": tiny_model("llama").to(torch.float32).save(tmp_path / "m")}
        chosen = {"selector": "gated_product"} if case == "gated" else {}
        given = recipe_of(tmp_path, folders, {**SPARSE, **chosen, "anchors": write_anchors(tmp_path / "anchors")})
    method = given.edits[0]
    assert isinstance(method, SparseEdit | HeadSteering)
    alone = make_plan(given).edit
    once = len(passes)
    assert once > 0
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "another cache"))
    written = dict(write_controls(given, tmp_path / "edits", draws=2))
    assert len(passes) == 2 * once
    controls = method.settled(alone).controls(2)
    assert len(written) == 1 + len(controls)
    for control in (method, *controls):
        assert Edit.load(written[control.label]).sha256 == alone_sha256(given, control)
    # Captures are kept where somebody asks for it, effects of heads in the user's cache.
    assert len(passes) == (2 if case == "heads" else 3 + len(controls)) * once


def test_edited_models_are_measured_every_time(tmp_path: Path, passes: list[tuple[int, ...]]) -> None:
    """The second layer of an edit builds on its first, which differs from control to control."""
    folders = {"m": tiny_model("llama").to(torch.float32).save(tmp_path / "m")}
    entry = {**SPARSE, "layers": [0, 1], "anchors": write_anchors(tmp_path / "anchors")}
    given = recipe_of(tmp_path, folders, entry)
    method = given.edits[0]
    assert isinstance(method, SparseEdit)

    def taken(chosen: SparseEdit) -> int:
        """Passes that it takes alone."""
        before = len(passes)
        make_plan(given.model_copy(update={"edits": (chosen,)}))
        return len(passes) - before

    first = taken(method.model_copy(update={"layers": (1,)}))  # of the original model
    alone = sum(map(taken, (method, *method.controls(1))))
    before = len(passes)
    written = dict(write_controls(given, tmp_path / "edits", draws=1))
    assert len(written) == 1 + len(method.controls(1))
    assert len(passes) - before == alone - (len(written) - 1) * first
    control = given.edits[0].model_copy(update={"control": "all"})
    assert Edit.load(written[control.label]).sha256 == alone_sha256(given, control)
