"""Reads tensors in blocks of rows, so that memory depends on the block and never on the tensor."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.source import Checkpoint
from polysafe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

BLOCK_BYTES = 512 << 10
"""Default size of a block: large enough for the disk to stream, small enough for the caches."""

_FILES = 1 << 16
"""Files that a process opens at most, where it may."""

COPY_BYTES = 1 << 20
"""Size of a block that is only copied or blended: there, turns cost more than what falls out of the caches."""


class TensorReader(Protocol):
    """Anything that tensors can be read from: a checkpoint, or a checkpoint seen through an edit."""

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, in file order."""

    def spec(self, name: str) -> TensorSpec:
        """Type and shape of a tensor."""

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start:stop` of the two-dimensional view, shape [stop - start, columns], in the storage type."""

    def whole(self, name: str) -> torch.Tensor:
        """The whole tensor in its own shape and storage type."""


class CheckpointReader:
    """A `TensorReader` over the files of a checkpoint. Safe to use from several threads.

    Args:
        checkpoint: The checkpoint.
        advance: Told the number of bytes of every read, for progress display.
    """

    def __init__(self, checkpoint: Checkpoint, advance: Callable[[int], None] = lambda _: None) -> None:
        self.checkpoint = checkpoint
        self._advance = advance
        self.bytes_read = 0
        self._descriptors: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, in file order."""
        return tuple(self.checkpoint.tensors)

    def spec(self, name: str) -> TensorSpec:
        """Type and shape of a tensor.

        Raises:
            CheckpointError: There is no such tensor.
        """
        try:
            return self.checkpoint.tensors[name]
        except KeyError:
            raise CheckpointError(f"there is no tensor {name!r}", where=self.checkpoint.root) from None

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fills `buffer` with the bytes of a tensor from byte `start` on.

        Raises:
            CheckpointError: The file ends early or cannot be read.
        """
        spec = self.spec(name)
        descriptor = self._open(spec.file)
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(descriptor, [buffer[done:]], spec.offset + start + done)
            except OSError as error:
                raise CheckpointError(f"cannot be read: {error.strerror}", where=spec.file) from error
            if count == 0:
                raise CheckpointError("became shorter while it was being read", where=spec.file)
            done += count
        self.bytes_read += done
        self._advance(done)

    def is_stored(self, name: str) -> bool:
        """Whether the values of a tensor are the file's bytes, with nothing computed."""
        return name in self.checkpoint.tensors

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start:stop` of the two-dimensional view, shape [stop - start, columns], in the storage type."""
        spec = self.spec(name)
        width = spec.row_bytes
        block = self._read(name, spec, start * width, (stop - start) * width)
        return block.view(stop - start, width // block.itemsize)

    def whole(self, name: str) -> torch.Tensor:
        """The whole tensor in its own shape and storage type."""
        spec = self.spec(name)
        return self._read(name, spec, 0, spec.nbytes).view(spec.shape)

    def _read(self, name: str, spec: TensorSpec, start: int, nbytes: int) -> torch.Tensor:
        import torch

        buffer = torch.empty(nbytes, dtype=torch.uint8)
        self.read_into(name, start, buffer.numpy().data)
        return buffer.view(torch_dtype(spec.dtype))

    def _open(self, path: Path) -> int:
        if path not in self._descriptors:
            try:
                opened = _opened(path)
            except OSError as error:
                raise CheckpointError(f"cannot be opened: {error.strerror}", where=path) from error
            other = self._descriptors.setdefault(path, opened)
            if other != opened:  # another thread was first
                os.close(opened)
        return self._descriptors[path]


def _opened(path: Path) -> int:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EMFILE or not _more_files():
            raise
    return os.open(path, flags)


def _more_files() -> bool:
    """Lets this process open more files, as far as it may: six models of 191 files are more than the usual 1,024."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


class Copies:
    """Bytes of files as they are, in a few buffers that are used again and again: fresh ones cost as much as copying.

    Args:
        unfinished: Blocks before the newest one that may still be looked at.
    """

    def __init__(self, unfinished: int) -> None:
        self._buffers = cycle([memoryview(bytearray(COPY_BYTES)) for _ in range(unfinished + 2)])

    def of(self, reader: CheckpointReader, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor, block by block.

        Raises:
            CheckpointError: As for `CheckpointReader.read_into`.
        """
        size = reader.spec(name).nbytes
        for start in range(0, size, COPY_BYTES):
            block = next(self._buffers)[: min(COPY_BYTES, size - start)]
            reader.read_into(name, start, block)
            yield block


def row_blocks(spec: TensorSpec, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """Splits the rows of a tensor into ranges of about `block_bytes`; at least one row each."""
    rows, width = spec.rows, spec.row_bytes
    step = max(1, block_bytes // width) if width else max(1, rows)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
