"""Synthetic Llama trios of any size, so that nothing has to be downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, but for its layers.

    Attributes:
        hidden: Width of the residual stream.
        heads: Attention heads.
        inner: Units of an MLP.
        vocabulary: Tokens.
    """

    hidden: int = 1024
    heads: int = 8
    inner: int = 2816
    vocabulary: int = 32_000


SMALL = Shape(64, 2, 128, 256)
"""Of a model that is there to have everything imported."""


def write_trio(folder: Path, gigabytes: float, shape: Shape = Shape(), others: Sequence[str] = ()) -> dict[str, Path]:
    """Writes base, safety and language expert of about `gigabytes` each (bfloat16), unless they are there.

    Args:
        folder: Where to.
        gigabytes: Size of each.
        shape: All other sizes.
        others: Names of further language experts.
    """
    per_layer = 4 * shape.hidden * shape.hidden + 3 * shape.hidden * shape.inner
    layers = max(2, round((gigabytes * 1e9 / 2 - 2 * shape.vocabulary * shape.hidden) / per_layer))
    paths = {name: folder / f"{gigabytes:g}gb" / name for name in ("base", "safety", "language", *others)}
    for seed, (name, path) in enumerate(paths.items()):
        if not (path / "config.json").exists():
            _write_model(path, layers, shape, seed, depth_peak=0.45 if name == "safety" else 0.0)
    return paths


def write_experts(folder: Path, model: Path, names: Sequence[str]) -> dict[str, Path]:
    """Writes copies of a real model whose matrices are moved by a hundredth of their spread, unless they are there."""
    paths = {name: folder / f"{model.name}-{name}" for name in names}
    for seed, path in enumerate(paths.values()):
        if not (path / "config.json").exists():
            generator = torch.Generator().manual_seed(seed)
            path.mkdir(parents=True, exist_ok=True)
            tensors = load_file(model / "model.safetensors")
            for tensor in (each for each in tensors.values() if each.ndim > 1):
                step = 0.01 * float(tensor.float().std())
                tensor.add_((step * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype))
            save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
            for file in (each for each in model.iterdir() if each.is_file() and each.suffix != ".safetensors"):
                shutil.copy(file, path)
    return paths


def _write_model(path: Path, layers: int, shape: Shape, seed: int, depth_peak: float) -> None:
    path.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(layers, shape)
    tensors = {}
    for index, (name, sizes) in enumerate(shapes.items()):
        base = torch.randn(sizes, generator=torch.Generator().manual_seed(index)) * 0.02
        depth = int(name.split(".")[2]) / layers if ".layers." in name else 0.5
        move = 0.002 * (1 + abs(depth - depth_peak)) if seed else 0.0
        noise = torch.randn(sizes, generator=torch.Generator().manual_seed(1000 * seed + index))
        tensors[name] = (base + move * noise).to(torch.bfloat16)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "num_hidden_layers": layers,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (path / "config.json").write_text(json.dumps(config))


def _shapes(layers: int, shape: Shape) -> dict[str, tuple[int, ...]]:
    hidden, inner, vocabulary = shape.hidden, shape.inner, shape.vocabulary
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{p}_proj.weight": (hidden, hidden) for p in "qkvo"}
        shapes |= {f"{prefix}mlp.{p}_proj.weight": (inner, hidden) for p in ("gate", "up")}
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{prefix}{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
    return {**shapes, "model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
