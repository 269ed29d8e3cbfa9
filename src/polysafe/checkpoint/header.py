"""The header of a safetensors file: read, checked completely, and written.

Everything polysafe knows about a tensor before reading it comes from here, so a header is either right in every
respect or refused with the file's name: offsets that overlap, leave holes, or do not fit shape and type are how a
damaged or hostile file would make a reader touch memory it should not.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from polysafe.checkpoint.dtypes import BITS
from polysafe.errors import CheckpointError
from polysafe.files.json_file import parse_json
from polysafe.files.memory import Stamp

MAX_HEADER = 20_000_000
"""Most bytes of a header. The format allows five times as many, which take over a gigabyte of memory to read; those of
real files have some hundred thousand."""
ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where a tensor lies and what it is.

    Attributes:
        name: Its name in the checkpoint.
        dtype: Safetensors type code, for example `BF16`.
        shape: Its shape.
        file: The file that holds it.
        offset: Position of its first byte, counted from the start of the file.
        nbytes: Its size in bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Length of a row in the two-dimensional view: the last axis, or 1 for vectors, scalars and packed types."""
        return self.shape[-1] if len(self.shape) > 1 and not self._packed else 1

    @property
    def rows(self) -> int:
        """Rows in the two-dimensional view: all axes but the last together; every element of a vector.

        Types with several elements to a byte cannot be cut between them: of these, every byte is a row.
        """
        if self._packed:
            return self.nbytes
        return math.prod(self.shape[:-1]) if len(self.shape) > 1 else self.numel

    @property
    def _packed(self) -> bool:
        return BITS[self.dtype] < 8

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the two-dimensional view."""
        return self.nbytes // self.rows if self.rows else 0


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header.

    Attributes:
        file: The file it was read from.
        size: Size of that file in bytes.
        mtime_ns: Its modification time when it was read.
        tensors: Its tensors in the order of their bytes.
        metadata: The free text pairs of the header.
        ctime_ns: When anything of it was last changed. Unlike the modification time, no program can set it back.
        inode: Its number on its disk.
    """

    file: Path
    size: int
    mtime_ns: int
    tensors: Mapping[str, TensorSpec]
    metadata: Mapping[str, str] = field(default_factory=dict)
    ctime_ns: int = 0
    inode: int = 0

    @property
    def stamp(self) -> Stamp:
        """What tells the file from what it was before."""
        return Stamp(self.file, self.size, self.mtime_ns, self.ctime_ns, self.inode)


def read_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file; reads no tensor.

    Raises:
        CheckpointError: The file is not a whole, well-formed safetensors file.
    """
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            prefix = file.read(8)
            length = _header_length(path, prefix, status.st_size)
            text = file.read(length)
    except IsADirectoryError:
        raise CheckpointError("is a folder, not a safetensors file", where=path) from None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=path) from error
    entries = _parse(path, text)
    metadata = _metadata(path, entries.pop("__metadata__", {}))
    specs = [_tensor(path, name, entry, 8 + length) for name, entry in entries.items()]
    specs.sort(key=lambda spec: (spec.offset, spec.nbytes))
    _check_cover(path, specs, 8 + length, status.st_size)
    tensors = {spec.name: spec for spec in specs}
    return Header(path, status.st_size, status.st_mtime_ns, tensors, metadata, status.st_ctime_ns, status.st_ino)


def encode_header(tensors: Iterable[tuple[str, str, Sequence[int]]]) -> bytes:
    """The header of a file that holds `(name, dtype, shape)` in this order, padded so that the data is aligned."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in tensors:
        end = position + tensor_bytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Size of a tensor in bytes."""
    return (math.prod(shape) * BITS[dtype] + 7) // 8


def load_json(path: Path, text: bytes, what: str) -> Any:
    """Parses JSON from an untrusted file: UTF-8, no key twice, no runaway nesting.

    Raises:
        CheckpointError: It is not such JSON.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        _refuse(path, f"{what} is not valid JSON: {error}")


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > MAX_HEADER:
        _check_not_a_stand_in(path, prefix)  # only now: a sensible length may spell anything
    if len(prefix) < 8:
        _refuse(path, f"has {size} bytes, fewer than the 8 that every safetensors file starts with")
    if length > MAX_HEADER:
        _refuse(path, f"announces a header of {length} bytes, above the limit of {MAX_HEADER}")
    if length > size - 8:
        _refuse(path, f"is cut short: its header needs {length + 8} bytes, the file has {size}")
    return length


def _check_not_a_stand_in(path: Path, prefix: bytes) -> None:
    if not prefix:
        _refuse(path, "is empty")
    if prefix.startswith(b"version "):
        raise CheckpointError(
            "is a git-lfs pointer, not the weights",
            where=path,
            remedy="fetch the real file with `git lfs pull` in that folder, or download the model again",
        )
    if prefix.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<"):
        raise CheckpointError(
            "is a web page, not the weights (a download that was answered with an error or login page)",
            where=path,
            remedy="download the model again",
        )


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    entries = load_json(path, text, "the header")
    if not isinstance(entries, dict):
        _refuse(path, "the header is not a JSON object")
    return entries


def _metadata(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        _refuse(path, "the header's __metadata__ is not a map of texts")
    return value


def _tensor(path: Path, name: str, entry: object, data_start: int) -> TensorSpec:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"tensor {name!r} does not have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        _refuse(path, f"tensor {name!r} has the unknown type {dtype!r}")
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(path, f"tensor {name!r} has a malformed shape or data_offsets")
    nbytes = offsets[1] - offsets[0]
    if nbytes * 8 != _numel(shape) * BITS[dtype]:
        _refuse(path, f"tensor {name!r}: {dtype} {reprlib.repr(shape)} does not take {nbytes} bytes")
    return TensorSpec(name, dtype, tuple(shape), path, data_start + offsets[0], nbytes)


def _numel(shape: list[int]) -> int:
    """Number of elements; stops at what no file can hold, so that a hostile shape costs no time."""
    numel = 1
    for size in shape:
        numel *= size
        if numel >= 2**63:
            break
    return numel


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_cover(path: Path, specs: Sequence[TensorSpec], start: int, size: int) -> None:
    position = start
    for spec in specs:
        if spec.offset != position:
            _refuse(path, f"tensor {spec.name!r} overlaps its neighbour or leaves a hole before it")
        position += spec.nbytes
    if position > size:
        _refuse(path, f"is cut short: its header describes {position} bytes, the file has {size}")
    if position < size:
        _refuse(path, f"has {size - position} bytes that its header does not describe")


def _refuse(path: Path, problem: str) -> NoReturn:
    raise CheckpointError(problem, where=path, remedy="fetch this file again, or export the model again")
