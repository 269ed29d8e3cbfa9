"""Random Llamas of any shape, written once and loaded as a command loads a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polysafe.probe.model import LoadedModel

WIDE = (32, 32, 8, 4096, 14336)
"""Layers, heads, heads of keys, width and inner width of Llama 3.1 8B."""


@dataclass(frozen=True)
class Shape:
    """Size of a random Llama, and length of the longest prompt."""

    layers: int
    heads: int
    kv_heads: int
    width: int
    inner: int
    tokens: int
    vocabulary: int = 2000
    dtype: str = "float32"


def load_random(shape: Shape, folder: Path, device: str) -> LoadedModel:
    """The random Llama of a folder, written there unless it is there; its digests are kept in a cache beside."""
    os.environ.setdefault("POLYSAFE_CACHE", str(folder.parent / "cache"))
    _write(shape, folder, device)
    return load_folder(folder, device)


def load_folder(folder: Path, device: str = "cpu") -> LoadedModel:
    """A model that stays open as long as the process."""
    from polysafe.checkpoint.opened import Source
    from polysafe.checkpoint.reader import CheckpointReader
    from polysafe.checkpoint.roles import classify
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.probe.model import load_model

    checkpoint = open_checkpoint(folder)
    return load_model(Source("model", checkpoint, classify(checkpoint), CheckpointReader(checkpoint)), device)


def _write(shape: Shape, folder: Path, device: str) -> None:
    """Large ones are drawn on the device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").exists():
        return
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2 * shape.tokens,
        tie_word_embeddings=False,
        dtype=getattr(torch, shape.dtype),
    )
    with torch.device(device):
        LlamaForCausalLM(config).to(config.dtype).save_pretrained(folder)
