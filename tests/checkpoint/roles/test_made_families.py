"""How a matrix is stored is what the class of its module says; `tests/architectures` asks for everything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from polysafe.checkpoint.roles import Kind, classify
from polysafe.checkpoint.source import open_checkpoint
from tests.architectures.made import text_config

_NAMED_ALIKE = ("gpt2", "gpt_bigcode", "gpt_neo", "starcoder2", "gptj", "codegen")
"""Models whose matrices are called as those of GPT-2 are, in part."""


@pytest.mark.parametrize("inner", [48, 32])  # with 32, all but a fused projection are square
@pytest.mark.parametrize("model_type", _NAMED_ALIKE)
def test_matrices_are_stored_as_their_modules_say(model_type: str, inner: int, tmp_path: Path) -> None:
    size = {"starcoder2": "intermediate_size", "gpt_neo": "intermediate_size"}.get(model_type, "n_inner")
    local = {"attention_types": [[["global", "local"], 1]]} if model_type == "gpt_neo" else {}
    rotary = {"rotary_dim": 4} if model_type in {"gptj", "codegen"} else {}
    model = AutoModelForCausalLM.from_config(text_config(model_type, {size: inner, **local, **rotary}))
    model.save_pretrained(tmp_path)
    architecture = classify(open_checkpoint(tmp_path))
    seen = 0
    for name, module in model.named_modules():
        role = architecture.roles.get(f"{name}.weight")
        if role is None or role.kind is not Kind.PROJECTION or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        seen += 1
        assert role.transposed == isinstance(module, Conv1D), name
    assert seen >= 2 * architecture.num_layers
