"""The metadata of a large vocabulary, read quickly: otherwise they take most of the time of an import."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Readers = dict[str, Any]
"""File -> what the package `gguf` read of its metadata, and what transformers made of it."""
_NATIVE = "I"
"""What the package `gguf` calls this machine's order of bytes."""
_COUNTED = 12
"""Bytes of an array's type and length."""


@contextmanager
def quick_reader(read: Readers | None = None) -> Iterator[None]:
    """Within it, the reader of the package `gguf` looks at plain arrays, and every file is read and understood once.

    It makes several views of the file for each of the million entries of a large vocabulary, and a view of a memmap
    takes four times as long as one of an array. transformers goes through all entries again for every config and
    tokenizer that it makes.

    Args:
        read: What was read before.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loading

    found = {} if read is None else read
    slow, load = gguf.GGUFReader, loading.load_gguf_checkpoint
    quick = _quick(slow)

    def once(path: str) -> Any:
        """The reader of a file, whichever link leads to it."""
        file = os.path.realpath(path)
        if file not in found:
            found[file] = quick(file)
        return found[file]

    gguf.GGUFReader = once  # type: ignore[assignment, misc]
    loading.load_gguf_checkpoint = _understood_once(load, found)
    try:
        yield
    finally:
        gguf.GGUFReader = slow  # type: ignore[misc]
        loading.load_gguf_checkpoint = load


def _understood_once(load: Callable[..., Any], found: Readers) -> Callable[..., Any]:
    """What transformers makes of a file's metadata, made once; of tensors every time."""

    def loaded(path: str, *given: Any, **options: Any) -> Any:
        if given or options != {"return_tensors": False}:
            return load(path, *given, **options)
        key = f"metadata of {os.path.realpath(path)}"
        if key not in found:
            found[key] = load(path, **options)
        return {part: dict(values) for part, values in found[key].items()}

    return loaded


def _quick(slow: type[Any]) -> type[Any]:
    """The reader, with a short way through long arrays to what its own way finds."""
    import gguf

    string, array = gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY

    class Quick(slow):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value.view(np.ndarray) if isinstance(value, np.memmap) else value)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            short = self._short(orig_offs) if raw_type == array and self.byte_order == _NATIVE else None
            return super()._get_field_parts(orig_offs, raw_type) if short is None else short

        def _short(self, start: int) -> Any:
            """Size, parts, places of values among them and types of an array; None of one of another kind."""
            kind, count = self._get(start, np.uint32), self._get(start + 4, np.uint64)
            first = start + _COUNTED
            if int(kind[0]) == string:
                end, parts = _strings(self.data, first, int(count[0]))
                places = range(3, 2 + len(parts), 2)
            elif scalar := self.gguf_scalar_to_np.get(int(kind[0])):
                values = self._get(first, scalar, count[0])
                if len(values) != count[0]:
                    return None
                end, parts, places = first + values.nbytes, list(values.reshape(-1, 1)), range(2, 2 + len(values))
            else:
                return None
            types = [array, gguf.GGUFValueType(int(kind[0]))] if parts else [array]
            return end - start, [kind, count, *parts], list(places), types

    return Quick


def _strings(data: np.ndarray[Any, Any], at: int, count: int) -> tuple[int, list[np.ndarray[Any, Any]]]:
    """Where strings end, and the length and the bytes of each."""
    content, whole, parts = data.data, len(data), list[np.ndarray[Any, Any]]()
    for _ in range(count):
        text = at + 8
        end = text + int.from_bytes(content[at:text], sys.byteorder)
        if end > whole:
            raise ValueError("a string goes on after the end of the file")
        parts += (data[at:text].view(np.uint64), data[text:end])
        at = end
    return at, parts
