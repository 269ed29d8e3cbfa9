"""Checkpoint files written byte by byte, so that a test can write what no library would."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polysafe.checkpoint.dtypes import BITS
from polysafe.checkpoint.header import Header, TensorSpec, encode_header, tensor_bytes
from polysafe.checkpoint.source import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]
Json = dict[str, Any]


def entry(dtype: str = "F32", shape: tuple[int, ...] = (1,), start: int = 0) -> Json:
    """What a header says about one tensor."""
    size = 1
    for axis in shape:
        size *= axis
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + (size * BITS[dtype] + 7) // 8]}


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file; `header` is JSON or the bytes that stand in its place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def write_raw(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw(header, data, length=length))
    return path


def write_config(folder: Path, **config: Any) -> Path:
    """A folder that holds nothing but a config."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 1, **config}), encoding="utf-8")
    return folder


def write_index(folder: Path, weight_map: Mapping[str, object]) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": dict(weight_map)}), encoding="utf-8")
    return path


def one_tensor(name: str = "w") -> bytes:
    """A sound file that holds one number."""
    return raw({name: entry()}, b"\0\0\x80?")


def sparse_checkpoint(folder: Path, shapes: Shapes, config: Json, *, dtype: str = "BF16") -> Path:
    """A checkpoint of zeros that takes no disk space."""
    folder.mkdir(parents=True)
    header = encode_header((name, dtype, shape) for name, shape in shapes.items())
    path = folder / "model.safetensors"
    path.write_bytes(header)
    os.truncate(path, len(header) + sum(tensor_bytes(dtype, shape) for shape in shapes.values()))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def header_only(shapes: Shapes, config: Json, *, dtype: str = "BF16") -> Checkpoint:
    """A checkpoint of which only names, shapes and config exist."""
    file, offset, specs = Path("model/model.safetensors"), 8, {}
    for name, shape in shapes.items():
        specs[name] = TensorSpec(name, dtype, shape, file, offset, tensor_bytes(dtype, shape))
        offset += specs[name].nbytes
    return Checkpoint(file.parent, "model", (Header(file, offset, 0, specs),), config)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
