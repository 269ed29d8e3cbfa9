"""Roles of models that transformers makes: what a matrix is, and how it is stored, is what its module says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from polysafe.checkpoint.opened import open_source
from polysafe.checkpoint.roles import Architecture, Kind, Module, classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import ArchitectureError
from polysafe.methods.blocks import BlockKey, blocks_of
from polysafe.methods.head_steering.columns import head_columns

_SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MIXER = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": 48},
    "gpt_bigcode": {"n_inner": 48},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "starcoder2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "xglm": {"ffn_dim": 48},
    "gptj": {"rotary_dim": 4, "n_inner": 48},
    "codegen": {"rotary_dim": 4, "n_inner": 48},
    "mpt": {},
    "qwen3_next": {**_MIXER, "num_hidden_layers": 4, "head_dim": 8, "num_experts": 2, "moe_intermediate_size": 16},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 2,
        "shared_intermediate_size": 24,
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
    },
}
WITH_HEADS = [family for family in FAMILIES if family not in {"qwen3_next", "granitemoehybrid"}]


def made(family: str, folder: Path, **others: Any) -> tuple[PreTrainedModel, Architecture]:
    """A tiny model of a family, saved, and the roles of its tensors."""
    default = AutoConfig.for_model(family)
    fields = {name for name in _SIZES if hasattr(default, name) or name in default.attribute_map}
    config = AutoConfig.for_model(family, **{name: _SIZES[name] for name in fields} | FAMILIES[family] | others)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return model, classify(open_checkpoint(folder))


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_stored_as_their_modules_say(family: str, tmp_path: Path) -> None:
    model, architecture = made(family, tmp_path)
    seen = 0
    for name, module in model.named_modules():
        role = architecture.roles.get(f"{name}.weight")
        if role is None or role.kind is not Kind.PROJECTION or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        seen += 1
        assert role.transposed == isinstance(module, Conv1D), name
    assert seen >= 2 * architecture.num_layers


@pytest.mark.parametrize("family", WITH_HEADS)
def test_every_matrix_of_a_layer_is_in_its_attention_or_its_mlp(family: str, tmp_path: Path) -> None:
    model, architecture = made(family, tmp_path)
    assert architecture.unknown == ()
    blocks = blocks_of(architecture, "module")
    placed = {name for tensors in blocks.values() for name in tensors}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear | Conv1D) and ".0." in f"{name}.":
            assert f"{name}.weight" in placed, name
    assert {key.module for key in blocks if key.layer == 0} == {Module.ATTENTION, Module.MLP}


@pytest.mark.parametrize("family", WITH_HEADS)
def test_heads_are_the_inputs_of_the_output_projection(family: str, tmp_path: Path) -> None:
    model, _ = made(family, tmp_path)
    with open_source(tmp_path) as source:
        columns = head_columns(source)
    modules = dict(model.named_modules())
    assert (columns.heads, columns.size) == (4, 8)
    for projection in columns.projections:
        module = modules[projection.tensor.removesuffix(".weight")]
        assert isinstance(module, torch.nn.Linear | Conv1D)
        inputs = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
        assert inputs == columns.heads * columns.size
        assert projection.transposed == isinstance(module, Conv1D)


@pytest.mark.parametrize("family", ["qwen3_next", "granitemoehybrid"])
def test_mixers_without_heads_are_not_steered(family: str, tmp_path: Path) -> None:
    made(family, tmp_path)
    with open_source(tmp_path) as source, pytest.raises(ArchitectureError, match="layer 0 has no output projection"):
        head_columns(source)


def test_a_layer_whose_attention_is_not_known_moves_whole_or_not_at_all(tmp_path: Path) -> None:
    _, architecture = made("granitemoehybrid", tmp_path)
    assert any(".mamba." in name for name in blocks_of(architecture, "layer")[BlockKey(0)])
    with pytest.raises(ArchitectureError, match=r"not recognised, the first is .*mamba") as caught:
        blocks_of(architecture, "module")
    assert "granularity: layer" in str(caught.value)


@pytest.mark.parametrize(("family", "transposed"), [("gpt2", True), ("gpt_bigcode", False)])
def test_square_matrices_are_stored_as_the_others(family: str, transposed: bool, tmp_path: Path) -> None:
    _, architecture = made(family, tmp_path, n_inner=32)
    found = {role.transposed for role in architecture.roles.values() if role.kind is Kind.PROJECTION and not role.bias}
    assert found == {transposed}
