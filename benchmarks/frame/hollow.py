"""Checkpoints that are nothing but headers: files of their full length without a byte of weights on the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.layout import plan_layout

SHARD = 5_000_000_000


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int


LLAMA_405B = Shape(126, 16384, 53248, 128, 8, 128256)


def write_hollow(folder: Path, shape: Shape) -> Path:
    """Writes a checkpoint of this shape in bfloat16; it reads as zeros."""
    folder.mkdir(parents=True)
    specs = [TensorSpec(name, "BF16", sizes, folder, 0, tensor_bytes("BF16", sizes)) for name, sizes in _shapes(shape)]
    layout = plan_layout(specs, SHARD)
    for shard in layout.shards:
        with open(folder / shard.name, "wb") as file:
            file.write(shard.header)
            file.truncate(shard.size)
    if (index := layout.index()) is not None:
        (folder / index[0]).write_bytes(index[1])
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "num_hidden_layers": shape.layers,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _shapes(shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
    width, keys = shape.width, shape.width // shape.heads * shape.kv_heads
    found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (shape.vocabulary, width))]
    for layer in range(shape.layers):
        rows = {"q": width, "k": keys, "v": keys, "o": width}
        prefix = f"model.layers.{layer}"
        found += [(f"{prefix}.self_attn.{name}_proj.weight", (size, width)) for name, size in rows.items()]
        found += [(f"{prefix}.mlp.{name}_proj.weight", (shape.inner, width)) for name in ("gate", "up")]
        found.append((f"{prefix}.mlp.down_proj.weight", (width, shape.inner)))
        found += [(f"{prefix}.{name}_layernorm.weight", (width,)) for name in ("input", "post_attention")]
    return [*found, ("model.norm.weight", (width,)), ("lm_head.weight", (shape.vocabulary, width))]
