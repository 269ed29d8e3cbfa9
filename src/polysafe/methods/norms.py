"""Norms of the members of a tensor, and of what experts changed of them.

Where numbers are read off files, numpy alone computes: importing torch takes longer than reading a small model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from polysafe.checkpoint.dtypes import EDITABLE
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.lora import AdaptedCheckpoint, AdaptedReader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader, TensorReader
from polysafe.checkpoint.values import read_floats

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from polysafe.methods.scores import Norms, Scored

BLOCK_BYTES = 256 << 10
"""Size of a block: what is computed of it, four times as wide, stays in a core's cache."""


def streamed_norms(item: Scored, base: Source, experts: Sequence[Source]) -> Norms:
    adapters = [_adapter(expert, base) for expert in experts]
    spec = base.reader.spec(item.tensor)
    step = min(max(1, BLOCK_BYTES // max(spec.row_bytes, 1)), spec.rows // item.members)
    origin = _Floats(base.reader, item.tensor, step)
    moved = {k: _Floats(each.reader, item.tensor, step) for k, each in enumerate(experts) if adapters[k] is None}
    wide = np.empty(step * spec.columns, np.float64)
    base_squares = [0.0] * item.members
    squares = [[0.0] * item.members for _ in experts]
    with np.errstate(over="ignore", invalid="ignore"):  # who asks for norms refuses what is not finite
        for member, start, stop in _blocks(spec, item.members, step):
            before = origin.rows(start, stop)
            base_squares[member] += _square_sum(before, wide)
            for k, floats in moved.items():
                after = floats.rows(start, stop)
                squares[k][member] += _square_sum(np.subtract(after, before, out=after), wide)
    updates = [
        [math.sqrt(s) for s in sums] if adapter is None else [adapter.update_norm(item.tensor)] * item.members
        for sums, adapter in zip(squares, adapters, strict=True)
    ]
    return [math.sqrt(s) for s in base_squares], updates


class _Floats:
    """Rows of a tensor as float32, in memory that each block uses again: fresh memory costs more than the arithmetic.

    Args:
        reader: What they are read from.
        name: Which one.
        most: Rows that are read at once, at most.
    """

    def __init__(self, reader: TensorReader, name: str, most: int) -> None:
        self._reader, self._spec = reader, reader.spec(name)
        self._bytes = memoryview(bytearray(most * self._spec.row_bytes))
        self._single = np.empty(most * self._spec.columns, np.float32)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start:stop`, one after the other; they are there until the next ones are read."""
        spec, reader = self._spec, self._reader
        if not (isinstance(reader, CheckpointReader) and reader.is_stored(spec.name) and spec.dtype in EDITABLE):
            computed = reader.rows(spec.name, start, stop).float().flatten().numpy()
            self._single[: computed.size] = computed
            return self._single[: computed.size]
        block = self._bytes[: (stop - start) * spec.row_bytes]
        reader.read_into(spec.name, start * spec.row_bytes, block)
        return read_floats(block, spec.dtype, self._single)


def _adapter(expert: Source, base: Source) -> AdaptedReader | None:
    """The expert's LoRA factors, if it is an adapter of this very base: their norm carries no rounding."""
    if isinstance(expert.reader, AdaptedReader) and isinstance(expert.checkpoint, AdaptedCheckpoint):
        same_base = expert.checkpoint.base.files == base.checkpoint.files
        return expert.reader if same_base and isinstance(base.reader, CheckpointReader) else None
    return None


def published_norms(item: Scored, base: Source, experts: Sequence[Source]) -> Norms:
    import torch

    origin = base.reader.whole(item.tensor).to(torch.bfloat16)
    moved = (expert.reader.whole(item.tensor).to(torch.bfloat16) for expert in experts)
    return [_bf16_norm(origin)], [[_bf16_norm(tensor - origin)] for tensor in moved]


def _blocks(spec: TensorSpec, members: int, step: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of at most `step` rows with the member they belong to; none crosses a member's end."""
    height = spec.rows // members
    for member in range(members):
        end = (member + 1) * height
        for start in range(member * height, end, step):
            yield member, start, min(start + step, end)


def _square_sum(values: NDArray[np.float32], wide: NDArray[np.float64]) -> float:
    """The sum of squares, in the memory `wide`. `numpy.dot` would share it among threads, and round by their number."""
    wide = wide[: values.size]
    wide[...] = values
    return float(np.einsum("i,i->", wide, wide))


def _bf16_norm(values: torch.Tensor) -> float:
    import torch

    return float(torch.linalg.vector_norm(values, dim=tuple(range(values.ndim))))
