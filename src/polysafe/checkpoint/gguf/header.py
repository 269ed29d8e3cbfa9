"""The header of a GGUF file, read and checked completely before any library is let near the file.

The `gguf` package and transformers trust what a header says. This reader does not: counts, lengths and offsets are
compared with the size of the file before anything of that size is read or made, so that a damaged or hostile file
costs neither memory nor time. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from polysafe.checkpoint.gguf.extra import gguf_package
from polysafe.errors import CheckpointError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ITEMS = 1 << 22
"""Entries of all arrays of the metadata together: several times those of the largest tokenizers."""
MAX_TEXT = 64 << 20
MAX_NAME = 1 << 16
MAX_AXES = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_SHARDED = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_AGAIN = "download the file again"


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array of the metadata, of which only the length matters here."""

    length: int


Value = int | float | bool | str | GgufArray


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where a tensor lies in a GGUF file and how it is stored.

    Attributes:
        name: Its name in llama.cpp's scheme.
        type: Name of its storage type, for example `Q4_1`.
        code: The type's number in the file.
        shape: Its shape, slowest axis first, as torch has it.
        offset: Position of its first byte, counted from the start of the file.
        nbytes: Its size in bytes.
    """

    name: str
    type: str
    code: int
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A checked header.

    Attributes:
        file: The file.
        size: Its size in bytes.
        architecture: Name of the architecture in llama.cpp's scheme.
        metadata: Its entries; of arrays only the length.
        tensors: Its tensors in the order of the header.
    """

    file: Path
    size: int
    architecture: str
    metadata: Mapping[str, Value]
    tensors: tuple[GgufTensor, ...]

    @property
    def types(self) -> dict[str, int]:
        """Storage types, each with the number of its tensors, in falling order."""
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            counts[tensor.type] = counts.get(tensor.type, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def text(self, key: str) -> str | None:
        """A text of the metadata; None where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) and value else None


def read_gguf_header(path: Path) -> GgufHeader:
    """Reads and checks the header of a GGUF file; reads no tensor.

    Raises:
        CheckpointError: The file is no whole, well-formed GGUF file, is one of several parts, or holds a tensor of a
            type that cannot be dequantised.
        ResourceError: The package `gguf` is missing.
    """
    gguf_package()
    try:
        with open(path, "rb") as file:
            start = file.read(24)
            _check_start(path, start)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Parser(path, data).header()
    except IsADirectoryError:
        raise CheckpointError("is a folder, not a GGUF file", where=path, remedy="name the file in it") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read: {getattr(error, 'strerror', None) or error}", where=path) from error


def _check_start(path: Path, start: bytes) -> None:
    if not start.startswith(MAGIC):
        if not start:
            problem = "is empty"
        elif start.startswith(b"version "):
            problem = "is a git-lfs pointer, not the weights"
        elif start.lstrip().startswith(b"<"):
            problem = "is a web page, not the weights"
        else:
            problem = "is no GGUF file: it does not begin with `GGUF`"
        raise CheckpointError(problem, where=path, remedy="name a .gguf file; if it should be one, download it again")
    if len(start) < 24:
        _damaged(path, f"is cut short: it has {len(start)} bytes")
    (version,) = struct.unpack_from("<I", start, 4)
    if version & 0xFFFF == 0:
        raise CheckpointError(
            "is a big-endian GGUF file, which this polysafe does not read",
            where=path,
            remedy="use the little-endian file, or convert it: `gguf-convert-endian FILE little`",
        )
    if version not in VERSIONS:
        raise CheckpointError(
            f"is of GGUF version {version}; this polysafe reads {' and '.join(map(str, VERSIONS))}",
            where=path,
            remedy="get a file that was made by a current llama.cpp",
        )


class _Parser:
    """Reads a header from its start to its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._size = path, data, len(data)
        self._at = 8
        self._items = 0

    def header(self) -> GgufHeader:
        tensors, entries = self._scalar("Q"), self._scalar("Q")
        # The least that one entry takes: two lengths and a type; of a tensor its axes and offset too.
        self._check_count(tensors, 24, "tensors")
        self._check_count(entries, 13, "entries of metadata")
        metadata = self._metadata(entries)
        if _SHARDED.search(self._path.name) or _count(metadata.get("split.count")) > 1:
            raise CheckpointError(
                "is one part of a model that was split into several files",
                where=self._path,
                remedy="join the parts first: `llama-gguf-split --merge FIRST-PART OUT.gguf`",
            )
        described = [self._tensor() for _ in range(tensors)]
        architecture = metadata.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            _damaged(self._path, "does not say its `general.architecture`")
        found = tuple(self._placed(described, self._alignment(metadata)))
        blocks = _count(metadata.get(f"{architecture}.block_count"))
        if blocks > len(found):
            _damaged(self._path, f"announces {blocks} layers, but holds {len(found)} tensors")
        return GgufHeader(self._path, self._size, architecture, metadata, found)

    def _metadata(self, entries: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text(MAX_NAME)
            if key in metadata:
                _damaged(self._path, f"names {key!r} twice")
            metadata[key] = self._value(self._scalar("I"))
        return metadata

    def _value(self, kind: int) -> Value:
        if kind == _TEXT:
            return self._text(MAX_TEXT)
        if kind == _ARRAY:
            return self._array(self._scalar("I"), self._scalar("Q"))
        if kind not in _SCALARS:
            _damaged(self._path, f"holds metadata of the unknown type {kind}")
        value: Value = self._scalar(_SCALARS[kind])
        return value

    def _array(self, kind: int, length: int) -> GgufArray:
        self._items += length
        if self._items > MAX_ITEMS:
            _damaged(self._path, f"announces arrays of {self._items} entries, more than any tokenizer has")
        if kind in _SCALARS:
            self._skip(length * struct.calcsize(_SCALARS[kind]))
        elif kind == _TEXT:
            self._check_count(length, 8, "texts")
            for _ in range(length):
                self._skip(self._scalar("Q"))
        else:
            _damaged(self._path, f"holds an array of the unknown type {kind}")
        return GgufArray(length)

    def _tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text(MAX_NAME)
        axes = self._scalar("I")
        if not 0 < axes <= MAX_AXES:
            _damaged(self._path, f"tensor {name!r} has {axes} axes")
        shape = tuple(self._scalar("Q") for _ in range(axes))[::-1]
        return name, self._scalar("I"), shape, self._scalar("Q")

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            _damaged(self._path, f"states the alignment {alignment!r}, which is no power of two")
        return alignment

    def _placed(self, described: list[tuple[str, int, tuple[int, ...], int]], alignment: int) -> list[GgufTensor]:
        """The tensors with their places, which lie in the file, apart from each other."""
        start = -(-self._at // alignment) * alignment
        found = []
        for name, code, shape, offset in described:
            label, nbytes = _measured(self._path, name, code, shape)
            if offset % alignment or start + offset + nbytes > self._size:
                _damaged(
                    self._path,
                    f"is cut short or damaged: tensor {name!r} would end at byte {start + offset + nbytes}, "
                    f"the file has {self._size}",
                )
            found.append(GgufTensor(name, label, code, shape, start + offset, nbytes))
        self._check_apart(found)
        return found

    def _check_apart(self, tensors: list[GgufTensor]) -> None:
        if not tensors:
            _damaged(self._path, "holds no tensor")
        names: set[str] = set()
        end = 0
        for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
            if tensor.name in names:
                _damaged(self._path, f"holds two tensors {tensor.name!r}")
            if tensor.offset < end:
                _damaged(self._path, f"tensor {tensor.name!r} overlaps its neighbour")
            names.add(tensor.name)
            end = tensor.offset + tensor.nbytes

    def _scalar(self, kind: str) -> Any:
        start = self._at
        self._skip(struct.calcsize(kind))
        return struct.unpack_from(f"<{kind}", self._data, start)[0]

    def _text(self, longest: int) -> str:
        length = self._scalar("Q")
        if length > longest:
            _damaged(self._path, f"announces a text of {length} bytes")
        start = self._at
        self._skip(length)
        try:
            return self._data[start : self._at].decode()
        except UnicodeDecodeError:
            _damaged(self._path, f"holds a text at byte {start} that is not UTF-8")

    def _skip(self, nbytes: int) -> None:
        if nbytes > self._size - self._at:
            _damaged(self._path, f"is cut short: its header ends beyond its {self._size} bytes")
        self._at += nbytes

    def _check_count(self, count: int, least: int, what: str) -> None:
        if count * least > self._size - self._at:
            _damaged(self._path, f"announces {count} {what}, more than its {self._size} bytes can hold")


def _measured(path: Path, name: str, code: int, shape: tuple[int, ...]) -> tuple[str, int]:
    """Name of a storage type, and the bytes that a tensor takes in it."""
    label, block, size = _storage(code)
    if block == 0:
        raise CheckpointError(
            f"tensor {name!r} is stored as {label}, which the installed `gguf` cannot dequantise",
            where=path,
            remedy="update it (`pip install -U gguf`), or use a file of another quantisation, such as Q8_0 or F16",
        )
    numel = math.prod(shape)
    if numel == 0 or numel >= 1 << 63 or shape[-1] % block:
        _damaged(path, f"tensor {name!r}: {label} cannot have the shape {list(shape)}")
    return label, numel // block * size


@cache
def _storage(code: int) -> tuple[str, int, int]:
    """Name of a type, elements and bytes of a block of it; no elements where it cannot be dequantised."""
    import gguf
    import numpy as np

    try:
        kind = gguf.GGMLQuantizationType(code)
    except ValueError:
        return f"the unknown type {code}", 0, 0
    block, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError:
        return kind.name, 0, 0
    return kind.name, block, size


def _count(value: Value | None) -> int:
    return value if type(value) is int else 0


def _damaged(path: Path, problem: str) -> NoReturn:
    raise CheckpointError(problem, where=path, remedy=_AGAIN)
