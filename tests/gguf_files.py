"""Tiny random GGUF files of several architectures.

Names, shapes and metadata come from the maps that transformers reads GGUF files with, so that a file here has what
llama.cpp's converter would write, in the shapes that it would write. The numbers mean nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 96, 4, 2, 16, 2
TOKENS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"

_LLAMA: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
# What transformers does not read from a file has its default: positions of GPT-2, heads and experts of Qwen3.
_GPT2 = {"n_embd": HIDDEN, "n_head": HEADS, "n_layer": LAYERS, "n_positions": 1024}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 768}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", _LLAMA | {"head_dim": 128}),
    "gemma2": ("gemma2", _LLAMA | {"head_dim": HEAD_DIM}),
    "gemma3": ("gemma3_text", _LLAMA | {"head_dim": HEAD_DIM}),
    "phi3": ("phi3", _LLAMA | {"pad_token_id": 0}),
    "stablelm": ("stablelm", _LLAMA | {"layer_norm_eps": 1e-5}),
    "starcoder2": ("starcoder2", _LLAMA | {"norm_epsilon": 1e-5}),
    "gpt2": ("gpt2", _GPT2),
    "qwen3moe": ("qwen3_moe", _LLAMA | _EXPERTS | {"head_dim": 128}),
}
"""GGUF architecture -> model type of transformers, and its config."""


def needs_gguf() -> pytest.MarkDecorator:
    """Skips where the libraries that read GGUF files are missing."""
    from importlib.util import find_spec

    missing = [name for name in ("gguf", "transformers") if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def vocabulary() -> list[str]:
    """Special tokens, every byte in GPT-2's spelling, so that any text can be written, and two merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return [*TOKENS, *bytes_to_unicode().values(), "he", "ll"]


def write_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    type: str = "F32",  # noqa: A002  the format's word
    tokenizer: bool = True,
    metadata: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
    change: Callable[[str, np.ndarray[Any, Any]], np.ndarray[Any, Any]] = lambda _, values: values,
    tied: bool = False,
    seed: int = 0,
) -> Path:
    """Writes a file.

    Args:
        path: Where.
        architecture: One of `ARCHITECTURES`.
        type: Storage type of matrices; vectors are F32.
        tokenizer: Whether vocabulary and chat template are in it.
        metadata: Further entries.
        without: Beginnings of the names of tensors to leave out.
        change: Gives the numbers of a tensor, from its name and those that it would have.
        tied: Whether there is no output matrix.
        seed: Of the random numbers.
    """
    import gguf

    model = _model(architecture, len(vocabulary()))
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**_metadata(architecture, model.config), **(metadata or {})}.items():
        _add(writer, key, value)
    if tokenizer:
        _add_tokenizer(writer)
    numbers = np.random.default_rng(seed)
    kind = gguf.GGMLQuantizationType[type]
    for name, shape in _shapes(architecture, model).items():
        if name.startswith(without) or (tied and name == "output.weight"):
            continue
        values = change(name, numbers.normal(0, 0.2, shape).astype(np.float32))
        stored = kind if len(shape) > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _model(architecture: str, vocab: int) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, options = ARCHITECTURES[architecture]
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, vocab_size=vocab, **options))


def _shapes(architecture: str, model: Any) -> dict[str, tuple[int, ...]]:
    """The tensors of a file: name in llama.cpp's scheme -> shape."""
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    kind: Callable[..., Any] = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    processor = kind(config=model.config.to_dict())
    names = get_gguf_hf_weights_map(model, processor)
    state = model.state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in names.items():
        shape = tuple(state[parameter].shape)
        if "exps" in name:  # experts are stacked; gate and up are apart
            full = name if name.endswith(".weight") else f"{name}.weight"
            shapes[full] = shape if "down" in name else (shape[0], shape[1] // 2, shape[2])
        elif architecture == "gpt2" and any(part in name for part in ("attn_qkv.w", "ffn_", "attn_output.w")):
            shapes[name] = shape[::-1]
        else:
            shapes[name] = shape
    return shapes


def _metadata(architecture: str, config: Any) -> dict[str, Any]:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    found: dict[str, Any] = {}
    known: Mapping[str, Any] = GGUF_CONFIG_MAPPING
    names = known.get(architecture) or known[config.model_type]
    for key, attribute in names.items():
        value = None if attribute in {None, -1} else getattr(config, attribute, None)
        if attribute == "rope_theta":
            value = 10000.0
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"{architecture}.{key}"] = value
    return found


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tokenizer(writer: Any) -> None:
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(TOKENS) + [1] * (len(tokens) - len(TOKENS)))
    writer.add_token_merges(["h e", "l l"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(4)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


def text(value: bytes) -> bytes:
    """A text as a GGUF header has it."""
    return struct.pack("<Q", len(value)) + value


def raw_header(
    *,
    entries: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    data: int = 4096,
) -> bytes:
    """A file from raw pieces, so that every field can lie.

    Args:
        entries: Metadata, as `entry` makes them; by default the architecture.
        tensors: Tensors, as `tensor` makes them; by default one.
        version: Version of the format.
        counts: What the header says about the number of tensors and entries.
        data: Bytes that follow the header.
    """
    entries = [entry("general.architecture", b"llama")] if entries is None else entries
    tensors = [tensor("token_embd.weight")] if tensors is None else tensors
    said = counts or (len(tensors), len(entries))
    return b"GGUF" + struct.pack("<IQQ", version, *said) + b"".join([*entries, *tensors]) + bytes(data)


def entry(key: str, value: bytes | int, kind: int | None = None) -> bytes:
    """An entry of the metadata: a text, or a number of 32 bits; with a type, raw bytes of it."""
    if kind is not None:
        assert isinstance(value, bytes)
        return text(key.encode()) + struct.pack("<I", kind) + value
    if isinstance(value, bytes):
        return text(key.encode()) + struct.pack("<I", 8) + text(value)
    return text(key.encode()) + struct.pack("<II", 4, value)


def tensor(
    name: str, shape: tuple[int, ...] = (8, 4), kind: int = 0, offset: int = 0, axes: int | None = None
) -> bytes:
    """The description of a tensor, fastest axis first as in the file."""
    said = len(shape) if axes is None else axes
    return text(name.encode()) + struct.pack(f"<I{len(shape)}QIQ", said, *shape, kind, offset)


def install_package(
    site: Path, name: str, files: Mapping[str, bytes], *, version: str = "1.0", about: str = ""
) -> None:
    """Puts a package into a folder from which Python imports; running its code is an error."""
    module = name.replace("-", "_")
    information = site / f"{module}-{version}.dist-info"
    content = {f"{module}/{path}": data for path, data in files.items()}
    content[f"{module}/__init__.py"] = b"raise RuntimeError('was imported')"
    content[f"{information.name}/METADATA"] = f"Name: {name}\nVersion: {version}\n{about}".encode()
    for path, data in content.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    (information / "RECORD").write_text("".join(f"{path},,\n" for path in content))
