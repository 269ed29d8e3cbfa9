from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from polysafe.checkpoint.lora import open_adapter, open_reader
from polysafe.checkpoint.opened import Source, open_source
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddLowRank, Copy
from polysafe.edits.reader import EditedReader
from polysafe.errors import ArchitectureError, CheckpointError, ResourceError
from polysafe.probe.capture import capture
from polysafe.probe.model import LoadedModel, Site, edited, load_model
from polysafe.probe.stores import Rows
from polysafe.probe.weights import changed_tensors, weights_sha256
from tests.models import EXPERTS, FAMILIES, HIDDEN, INNER, read_weights, tiny_model, write_weights
from tests.probe.helpers import plainly, prompts

Loader = Callable[[str], LoadedModel]
EXPERT_FAMILIES = {"mixtral", "qwen3_moe", "gpt_oss"}
GATE = "model.layers.0.mlp.gate_proj.weight"


def _edit(tensor: str = GATE, start: str = "llama", size: float = 1.0) -> Edit:
    factors = AddLowRank(rows=torch.tensor([1, 3]), a=size * torch.ones(2, 1), b=torch.ones(HIDDEN, 1))
    return Edit(start=start, steps={tensor: (factors,)}, sources={start: SourceRecord(origin=start)})


def _behind(source: Source, edit: Edit) -> Source:
    return replace(source, reader=EditedReader(edit, {source.name: source.reader}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_as_its_files_say(loaded: Loader, family: str) -> None:
    model = loaded(family)
    assert model.parameters.num_layers == model.architecture.num_layers == 4
    assert not model.model.training
    assert model.dtype == "float32"
    assert model.changed == ()
    stored = read_weights(model.source.checkpoint.root)
    for name, parameter in model.model.named_parameters():
        if name in stored:
            assert torch.equal(parameter, stored[name].float()), name


@pytest.mark.parametrize("family", FAMILIES)
def test_places_are_found_by_role(loaded: Loader, family: str) -> None:
    model = loaded(family)
    last = model.parameters.num_layers - 1
    widths = {Site.MLP: HIDDEN, Site.UNITS: INNER, Site.HEADS: HIDDEN}
    for site, width in widths.items():
        if site is Site.UNITS and family in EXPERT_FAMILIES:
            with pytest.raises(ArchitectureError, match="has no projection"):
                model.module(last, site)
            continue
        name, module = model.module(last, site)
        assert model.model.get_submodule(name) is module
        assert f".{last}." in name
        (first,) = plainly(model, prompts((4,)), name)
        assert first.shape == (4, width)


def test_layers_out_of_range_are_refused(llama: LoadedModel) -> None:
    for layer in (4, -1):
        with pytest.raises(ArchitectureError, match="layers 0 … 3"):
            llama.module(layer, Site.MLP)


def test_a_source_behind_an_edit_is_loaded_edited(folder: Path) -> None:
    with open_source(folder) as source:
        behind = _behind(source, _edit())
        twice = _behind(behind, _edit("model.layers.1.mlp.up_proj.weight"))  # an edit behind an edit
        plain, model = load_model(source), load_model(twice)
        assert changed_tensors(source) == ()
        assert model.changed == changed_tensors(twice) == (GATE, "model.layers.1.mlp.up_proj.weight")
        parameters = dict(model.model.named_parameters())
        for name in source.reader.names():
            assert torch.equal(parameters[name], twice.reader.whole(name).float()), name
        assert len({plain.sha256, load_model(behind).sha256, model.sha256}) == 3


def test_an_edit_that_changes_nothing_is_the_same_model(folder: Path) -> None:
    with open_source(folder) as source:
        same = Edit(start="llama", steps={GATE: (Copy(source="llama"),)}, sources={"llama": SourceRecord(origin="x")})
        assert changed_tensors(_behind(source, same)) == ()
        assert weights_sha256(_behind(source, same)) == weights_sha256(source)


def test_another_storage_type_changes_every_tensor(folder: Path) -> None:
    with open_source(folder) as source:
        wide = Edit(start="llama", steps={}, sources={"llama": SourceRecord(origin="x")}, dtype="F32")
        behind = _behind(source, wide)
        assert changed_tensors(behind) == source.reader.names()
        assert load_model(behind).model.dtype == torch.float32


def test_an_adapter_is_merged(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 2, "r": 1}))
    module = "base_model.model." + GATE.removesuffix(".weight")
    factors = {f"{module}.lora_A.weight": torch.ones(1, HIDDEN), f"{module}.lora_B.weight": torch.ones(INNER, 1)}
    save_file(factors, adapter / "adapter_model.safetensors")
    base = open_checkpoint(folder)
    checkpoint = open_adapter(adapter, base)
    with open_reader(checkpoint) as reader:
        source = Source("adapted", checkpoint, classify(checkpoint), reader)
        model = load_model(source)
        assert model.changed == (GATE,)
        expected = (read_weights(folder)[GATE].double() + 2.0).bfloat16().float()
        assert torch.equal(dict(model.model.named_parameters())[GATE], expected)


def test_a_loaded_model_is_edited_for_a_while_and_put_back(folder: Path) -> None:
    rendered = prompts()
    with open_source(folder) as source:
        model = load_model(source)
        before = {name: parameter.clone() for name, parameter in model.model.named_parameters()}
        identity = model.sha256
        with edited(model, _edit(), {"llama": source.reader}) as changed:
            fresh = load_model(_behind(source, _edit()))
            assert changed.sha256 == fresh.sha256 != identity
            got = capture(changed, rendered, into=Rows())
            assert torch.equal(got[1], capture(fresh, rendered, into=Rows())[1])
            assert not torch.equal(got[1], capture(fresh, prompts(seed=1), into=Rows())[1])
        with pytest.raises(ZeroDivisionError), edited(model, _edit(), {"llama": source.reader}):
            raise ZeroDivisionError
        for name, parameter in model.model.named_parameters():
            assert torch.equal(parameter, before[name]), name


def test_fused_experts_cannot_be_edited_in_place(loaded: Loader) -> None:
    model = loaded("mixtral")
    tensor = "model.layers.0.block_sparse_moe.experts.0.w1.weight"
    edit = _edit(tensor, model.source.name)
    readers = {model.source.name: model.source.reader}
    with pytest.raises(ArchitectureError, match="no parameter"), edited(model, edit, readers):
        pass
    behind = load_model(_behind(model.source, edit))
    assert behind.changed == (tensor,)
    fused = dict(behind.model.named_parameters())["model.layers.0.mlp.experts.gate_up_proj"]
    assert fused.shape[0] == EXPERTS
    assert torch.equal(fused[0, :INNER], behind.source.reader.whole(tensor).float())


@pytest.mark.fault(19, "every field of the identity")
def test_identity_is_of_bytes_and_config(folder: Path, tmp_path: Path) -> None:
    copy = tiny_model("llama", layers=2).save(tmp_path / "elsewhere", shards=1)
    other_seed = tiny_model("llama", layers=2, seed=5).save(tmp_path / "other")
    other_config = tiny_model("llama", layers=2).save(tmp_path / "config")
    config = json.loads((other_config / "config.json").read_text()) | {"rope_theta": 5.0}
    (other_config / "config.json").write_text(json.dumps(config))
    hashes = []
    for path in (folder, copy, other_seed, other_config):
        with open_source(path) as source:
            hashes.append(weights_sha256(source))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_tensors_that_are_missing_or_left_over_are_refused(folder: Path) -> None:
    tensors = read_weights(folder)
    write_weights(folder, {n: t for n, t in tensors.items() if n != "model.layers.1.input_layernorm.weight"})
    with open_source(folder) as source, pytest.raises(CheckpointError, match=r"lacks 1 tensors.*input_layernorm"):
        load_model(source)
    extra = {"model.layers.1.self_attn.q_proj.bias": torch.zeros(HIDDEN)}
    write_weights(folder, {**tensors, **extra})
    with open_source(folder) as source, pytest.raises(CheckpointError, match=r"1 weights .* not use.*q_proj.bias"):
        load_model(source)
    write_weights(folder, {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(2)})
    with open_source(folder) as source:
        assert load_model(source).parameters.num_layers == 2


def _with_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_models_that_cannot_be_run_are_refused(folder: Path) -> None:
    quantised = _with_config(folder, quantization_config={"quant_method": "gptq"})
    with open_source(quantised) as source, pytest.raises(CheckpointError, match="quantised"):
        load_model(source)
    unknown = _with_config(folder, quantization_config=None, model_type="no-such-model")
    with open_source(unknown) as source, pytest.raises(ArchitectureError, match="cannot build this model"):
        load_model(source)


@pytest.mark.fault(9, "never run for generating")
def test_code_in_the_folder_is_never_run(folder: Path) -> None:
    trap = folder / "ran"
    (folder / "evil.py").write_text(f"open({str(trap)!r}, 'w').close()\n")
    maps = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    with open_source(_with_config(folder, auto_map=maps)) as source:
        assert load_model(source).parameters.num_layers == 2
    with open_source(_with_config(folder, model_type="unheard-of")) as source, pytest.raises(ArchitectureError):
        load_model(source)
    assert not trap.exists()


def test_a_device_that_is_not_there_is_refused(llama: LoadedModel) -> None:
    missing = "cuda:99" if torch.cuda.is_available() else "cuda"
    with pytest.raises(ResourceError, match="device cuda"):
        load_model(llama.source, device=missing)


def test_the_type_to_compute_in_can_be_chosen(llama: LoadedModel) -> None:
    assert load_model(llama.source, dtype=torch.bfloat16).dtype == "bfloat16"
