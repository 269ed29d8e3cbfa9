"""Synthetic Llama trios of any size, so that nothing has to be downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, HEADS, INNER, VOCABULARY = 1024, 8, 2816, 32_000


def write_trio(folder: Path, gigabytes: float) -> dict[str, Path]:
    """Writes base, safety and language expert of about `gigabytes` each (bfloat16), unless they are there."""
    per_layer = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER
    layers = max(2, round((gigabytes * 1e9 / 2 - 2 * VOCABULARY * HIDDEN) / per_layer))
    paths = {name: folder / f"{gigabytes:g}gb" / name for name in ("base", "safety", "language")}
    for seed, (name, path) in enumerate(paths.items()):
        if not (path / "config.json").exists():
            _write_model(path, layers, seed, depth_peak=0.45 if name == "safety" else 0.0)
    return paths


def _write_model(path: Path, layers: int, seed: int, depth_peak: float) -> None:
    path.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(layers)
    tensors = {}
    for index, (name, shape) in enumerate(shapes.items()):
        base = torch.randn(shape, generator=torch.Generator().manual_seed(index)) * 0.02
        depth = int(name.split(".")[2]) / layers if ".layers." in name else 0.5
        move = 0.002 * (1 + abs(depth - depth_peak)) if seed else 0.0
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + index))
        tensors[name] = (base + move * noise).to(torch.bfloat16)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (path / "config.json").write_text(json.dumps(config))


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
        shapes |= {f"{prefix}mlp.{p}_proj.weight": (INNER, HIDDEN) for p in ("gate", "up")}
        shapes[f"{prefix}mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes |= {f"{prefix}{n}_layernorm.weight": (HIDDEN,) for n in ("input", "post_attention")}
    return {**shapes, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
