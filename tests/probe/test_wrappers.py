"""Language models inside a wrapper for pictures, as Gemma 3 and Qwen3.5 are released, run as text models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from polysafe.checkpoint.opened import open_source
from polysafe.probe.model import Site, load_model

_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MIXER = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_SIGLIP = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN = {
    "depth": 1,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 16,
    "out_hidden_size": 32,
    "patch_size": 14,
    "deepstack_visual_indexes": [0],
}
WRAPPERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "gemma3": ({}, _SIGLIP, {"mm_tokens_per_image": 4}),
    "qwen3_5": (_MIXER, _QWEN, {}),
    "qwen3_vl": ({}, _QWEN, {}),
    "mistral3": ({"model_type": "mistral"}, {**_SIGLIP, "model_type": "pixtral", "head_dim": 8}, {}),
}


def wrapper(family: str, folder: Path) -> PreTrainedModel:
    text, vision, others = WRAPPERS[family]
    config = AutoConfig.for_model(family, text_config={**_TEXT, **text}, vision_config=vision, **others)
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", WRAPPERS)
def test_a_wrapped_model_says_what_it_said(family: str, tmp_path: Path) -> None:
    model, tokens = wrapper(family, tmp_path), torch.tensor([[1, 5, 6, 7]])
    with open_source(tmp_path) as source, torch.no_grad():
        loaded = load_model(source)
        torch.testing.assert_close(loaded.model(input_ids=tokens).logits, model(input_ids=tokens).logits)
        assert loaded.architecture.num_layers == 4
        assert isinstance(loaded.module(3, Site.MLP)[1], torch.nn.Module)
        assert loaded.max_tokens == 64
