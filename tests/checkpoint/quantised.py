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


SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "4 bits, groups": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 8}),
    "4 bits, groups, zero points": (
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": 8, "symmetric": False},
    ),
    "2 bits, groups, zero points": (
        "pack-quantized",
        {"num_bits": 2, "strategy": "group", "group_size": 8, "symmetric": False},
    ),
    "4 bits, rows, zero points": ("pack-quantized", {"num_bits": 4, "strategy": "channel", "symmetric": False}),
    "8 bits, rows": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
    "8 bits, rows, zero points": ("pack-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": False}),
    "4 bits, a tensor": ("pack-quantized", {"num_bits": 4, "strategy": "tensor"}),
    "8 bits, a tensor, zero points": ("pack-quantized", {"num_bits": 8, "strategy": "tensor", "symmetric": False}),
    "bytes, rows": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "bytes, groups, zero points": (
        "int-quantized",
        {"num_bits": 8, "strategy": "group", "group_size": 8, "symmetric": False},
    ),
    "bytes of 4 bits, a tensor, zero points": (
        "naive-quantized",
        {"num_bits": 4, "strategy": "tensor", "symmetric": False},
    ),
    "FP8, rows": ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    "FP8, a tensor": ("naive-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
}
"""How compressed-tensors quantises a model -> format, and what the library is told of weights."""


def save_compressed(
    folder: Path,
    how: str,
    dtype: torch.dtype = torch.bfloat16,
    activations: dict[str, Any] | None = None,
    **sizes: Any,
) -> Path:
    """A random Llama over bytes whose projections the library compressed-tensors quantises, and what goes into them."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tests.byte_level import byte_tokenizer

    torch.manual_seed(0)
    form, weights = SCHEMES[how]
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes)).to(dtype)
    scheme = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    told = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    apply_quantization_config(model, told)
    modules: list[Any] = [each for each in model.modules() if hasattr(each, "quantization_scheme")]
    for module in modules:
        args, weight = module.quantization_scheme.weights, module.weight.detach()
        rows = {"tensor": 1, "channel": len(weight)}.get(args.strategy, weight.numel() // (args.group_size or 1))
        low, high = weight.reshape(rows, -1).aminmax(dim=1)
        scale, zero = calculate_qparams(low, high, args)
        module.weight_scale.data.copy_(scale.reshape(module.weight_scale.shape))
        module.weight_zero_point.data.copy_(zero.reshape(module.weight_zero_point.shape))
    compressor = ModelCompressor.from_pretrained_model(model, form)
    compressor.compress_model(model)
    model.config.save_pretrained(folder)
    compressor.update_config(str(folder))
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    byte_tokenizer().save_pretrained(folder)
    return folder
