from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from polysafe.checkpoint.output import Workspace
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.engine.plan import IMPORTS, make_plan
from polysafe.errors import ResourceError
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import Trio, read_weights, tiny_model, trio

LOW_PASS = {"method": "task_arithmetic", "base": "base", "experts": ["safety", "sw"], "scale": 0.4}
METHODS: list[list[dict[str, Any]]] = [
    [LAYER_SWAP],
    [LAYER_SWAP | {"granularity": "layer"}],
    [SOUP],
    [SOUP, SOUP],
    [LOW_PASS],
    [{"method": "dare", "base": "base", "experts": ["safety", "sw"]}],
    [SOUP | {"restrict_to": "layers"}, LAYER_SWAP],
]


@pytest.mark.parametrize("edits", METHODS)
@pytest.mark.parametrize("shard_size", ["5GB", 5000])
def test_announced_bytes_are_the_real_ones(
    edits: list[dict[str, Any]], shard_size: str | int, llama: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(llama.paths, tmp_path / "out", *edits, shard_size=shard_size)
    cost = make_plan(recipe).cost
    read, writing = [0], [False]
    whole_read = CheckpointReader.read_into

    def counted(self: CheckpointReader, name: str, start: int, buffer: memoryview) -> None:
        read[0] += len(buffer) * writing[0]
        whole_read(self, name, start, buffer)

    def progress(stage: str, done: int, total: int) -> None:
        writing[0] = stage == "writing"

    monkeypatch.setattr(CheckpointReader, "read_into", counted)
    run_recipe(recipe, progress=progress)
    assert cost.bytes_read == read[0]
    files = snapshot(tmp_path / "out")
    model = {name: content for name, content in files.items() if not name.startswith(("README.md", "polysafe"))}
    assert cost.bytes_written == sum(map(len, model.values()))


def test_planning_writes_nothing(llama: Trio, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    plan = make_plan(recipe_for(llama.paths, tmp_path / "deep" / "out"))
    assert sorted(tmp_path.iterdir()) == before
    assert plan.output == tmp_path / "deep" / "out"
    assert plan.cost.free_disk > 0
    assert plan.cost.peak_memory > IMPORTS
    assert plan.cost.seconds > 0


def test_plan_is_told_in_full(llama: Trio, tmp_path: Path) -> None:
    plan = make_plan(recipe_for(llama.paths, tmp_path / "out", tokenizer_from="base"))
    told = plan.to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["tokenizer_from"] == "base"
    assert sum(told["operations"].values()) == len(read_weights(llama.language))
    assert sum(told["files"].values()) == plan.layout.size
    assert len(plan.decisions) == len(told["methods"][0]["decisions"])
    assert all(record["files"] == {} for record in told["sources"].values())  # nothing was hashed for it


def test_plan_decides_as_the_run_does(llama: Trio, tmp_path: Path) -> None:
    recipe = recipe_for(llama.paths, tmp_path / "out")
    plan = make_plan(recipe)
    run_recipe(recipe)
    written = json.loads((tmp_path / "out" / "polysafe" / "plan.json").read_text())
    assert {**written, "sources": None} == {**plan.to_json(), "sources": None}


def test_unknown_tensors_are_in_the_notes(tmp_path: Path) -> None:
    models = trio(tmp_path / "models", "gpt_oss", layers=2)
    plan = make_plan(recipe_for(models.paths, tmp_path / "out", SOUP))
    assert "sw: 2 tensors with no known role: model.layers.0.self_attn.sinks, model.layers.1.self_attn.sinks" in (
        plan.notes
    )
    assert replace(plan, notes=plan.notes * 2).remarks == plan.remarks  # each is told once


def test_tying_that_is_misstated_is_in_the_notes(tmp_path: Path) -> None:
    models = trio(tmp_path / "models", layers=2)
    config = json.loads((models.language / "config.json").read_text())
    (models.language / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    plan = make_plan(recipe_for(models.paths, tmp_path / "out", SOUP | {"restrict_to": "layers"}))
    assert any(note.startswith("sw: config.json says the head is tied") for note in plan.notes)


def give_template(folder: Path, *, own_file: bool) -> None:
    if own_file:
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        return
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))


@pytest.mark.parametrize("own_file", [True, False])
def test_a_chat_template_that_gets_lost_is_in_the_notes(own_file: bool, tmp_path: Path) -> None:
    models = trio(tmp_path / "models", layers=2)
    recipe = recipe_for(models.paths, tmp_path / "out")
    assert not any("template" in note for note in make_plan(recipe).notes)  # of base models, which have none
    give_template(models.paths["safety"], own_file=own_file)
    (lost,) = (note for note in make_plan(recipe).notes if "template" in note)
    assert lost.startswith("sw: has no chat template")
    assert "there is one in safety:" in lost
    assert "`tokenizer_from: safety` under `output`" in lost
    assert lost in run_recipe(recipe).notes
    followed = recipe_for(models.paths, tmp_path / "other", tokenizer_from="safety")
    assert not any("template" in note for note in make_plan(followed).notes)
    give_template(models.paths["sw"], own_file=own_file)
    assert not any("template" in note for note in make_plan(recipe).notes)


Memory = namedtuple("Memory", "available")  # noqa: PYI024
Disk = namedtuple("Disk", "free")  # noqa: PYI024


def test_output_that_does_not_fit_the_disk_is_refused(
    llama: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(llama.paths, tmp_path / "out")
    needed = make_plan(recipe).cost.bytes_written
    monkeypatch.setattr(psutil, "disk_usage", lambda _: Disk(needed - 1))
    with pytest.raises(ResourceError, match=f"needs {needed:,} bytes, the disk has {needed - 1:,} free"):
        run_recipe(recipe)
    assert [path for path in tmp_path.iterdir() if "out" in path.name] == []
    monkeypatch.setattr(psutil, "disk_usage", lambda _: Disk(needed))
    run_recipe(recipe)


def test_what_an_interrupted_run_wrote_needs_no_room_again(
    llama: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(llama.paths, tmp_path / "out", shard_size=4000)
    needed = make_plan(recipe).cost.bytes_written

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "writing" and done > total // 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, progress=stop)
    left = needed - Workspace(recipe.output.path).size()
    assert left < needed
    monkeypatch.setattr(psutil, "disk_usage", lambda _: Disk(left - 1))
    with pytest.raises(ResourceError):
        run_recipe(recipe)
    monkeypatch.setattr(psutil, "disk_usage", lambda _: Disk(left))
    assert run_recipe(recipe).resumed


def test_run_that_does_not_fit_the_memory_is_refused(
    llama: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(llama.paths, tmp_path / "out")
    peak = make_plan(recipe).cost.peak_memory
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(peak - 1))
    with pytest.raises(ResourceError, match=f"needs about {peak:,} bytes of memory, {peak - 1:,} are available"):
        run_recipe(recipe)
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    peaks = set()
    for layers in (2, 20):
        for name in ("base", "safety", "sw"):
            tiny_model(layers=layers, seed=len(name)).save(tmp_path / str(layers) / name)
        paths = {name: tmp_path / str(layers) / name for name in ("base", "safety", "sw")}
        peaks.add(make_plan(recipe_for(paths, tmp_path / "out", SOUP)).cost.peak_memory)
    assert len(peaks) == 1
