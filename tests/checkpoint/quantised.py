"""Tiny checkpoints in the layouts of quantised models: one projection, its codes and scales."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
AT = "model.layers.0.mlp.up_proj"
OUT, IN, GROUP = 32, 64, 16


def _codes(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 100, shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _fp8(scale: str, shape: tuple[int, ...]) -> State:
    weight = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(1)).to(torch.float8_e4m3fn)
    scales = torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.5
    return {f"{AT}.weight": weight, f"{AT}.{scale}": scales}


def _packed(rows: int, columns: int) -> State:
    """4-bit codes, eight to an int32."""
    return {
        f"{AT}.qweight": _codes((rows, columns), torch.int32),
        f"{AT}.qzeros": _codes((IN // GROUP, OUT // 8), torch.int32),
        f"{AT}.scales": torch.ones(IN // GROUP, OUT, dtype=torch.float16),
    }


LAYOUTS: dict[str, tuple[Callable[[], State], dict[str, Any]]] = {
    "fp8 blocks": (
        lambda: _fp8("weight_scale_inv", (2, 4)),
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [16, 16], "activation_scheme": "dynamic"},
    ),
    "fp8 tensors": (
        lambda: _fp8("weight_scale", ()),
        {"quant_method": "compressed-tensors", "format": "float-quantized"},
    ),
    "gptq": (
        lambda: _packed(IN // 8, OUT) | {f"{AT}.g_idx": _codes((IN,), torch.int32)},
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP},
    ),
    "awq": (lambda: _packed(IN, OUT // 8), {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}),
    "bitsandbytes 4": (
        lambda: {
            f"{AT}.weight": _codes((OUT * IN // 2, 1), torch.uint8),
            f"{AT}.weight.absmax": _codes((OUT * IN // 64,), torch.uint8),
            f"{AT}.weight.quant_map": torch.rand(16),
            f"{AT}.weight.quant_state.bitsandbytes__nf4": _codes((80,), torch.uint8),
        },
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    ),
    "bitsandbytes 8": (
        lambda: {f"{AT}.weight": _codes((OUT, IN), torch.int8), f"{AT}.SCB": torch.rand(OUT)},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
    ),
    "packed": (
        lambda: {
            f"{AT}.weight_packed": _codes((OUT, IN // 8), torch.int32),
            f"{AT}.weight_scale": torch.rand(OUT, IN // GROUP).to(torch.bfloat16),
            f"{AT}.weight_shape": torch.tensor([OUT, IN]),
        },
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
    ),
    "mxfp4": (
        lambda: {
            "model.layers.0.mlp.experts.gate_up_proj_blocks": _codes((2, OUT, IN // 32, 16), torch.uint8),
            "model.layers.0.mlp.experts.gate_up_proj_scales": _codes((2, OUT, IN // 32), torch.uint8),
        },
        {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    ),
}
"""Name -> its tensors, and what a config says of it."""


def save_layout(folder: Path, layout: str, *, config: bool = True) -> Path:
    """Writes a layout, with a norm that is not quantised; without what the config says of it where that is wanted."""
    make, settings = LAYOUTS[layout]
    others = {"model.layers.0.input_layernorm.weight": torch.ones(IN, dtype=torch.bfloat16)}
    save_file(make() | others, folder / "model.safetensors", metadata={"format": "pt"})
    content = {"model_type": "llama", **({"quantization_config": settings} if config else {})}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


BITS: dict[str, dict[str, Any]] = {
    "4 bits": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
    "4 bits, twice": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": True},
    "8 bits": {"load_in_8bit": True},
}
"""How bitsandbytes quantises a model -> what it is told."""


def save_bitsandbytes(folder: Path, how: str, **sizes: Any) -> Path:
    """A random Llama over bytes as transformers saves it with bitsandbytes."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

    from tests.byte_level import byte_tokenizer

    torch.manual_seed(0)
    whole = folder.with_name(f"{folder.name}-whole")
    AutoModelForCausalLM.from_config(LlamaConfig(**sizes)).save_pretrained(whole)
    settings = BitsAndBytesConfig(**BITS[how])
    AutoModelForCausalLM.from_pretrained(whole, quantization_config=settings, device_map="cpu").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
