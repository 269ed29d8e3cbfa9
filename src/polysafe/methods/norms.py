"""Norms of the members of a tensor, and of what experts changed of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.lora import AdaptedCheckpoint, AdaptedReader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import BLOCK_BYTES, CheckpointReader

if TYPE_CHECKING:
    from polysafe.methods.scores import Norms, Scored


def streamed_norms(item: Scored, base: Source, experts: Sequence[Source]) -> Norms:
    base_squares = [0.0] * item.members
    squares = [[0.0] * item.members for _ in experts]
    adapters = [_adapter(expert, base) for expert in experts]
    for member, start, stop in _blocks(base.reader.spec(item.tensor), item.members):
        origin = base.reader.rows(item.tensor, start, stop).to(torch.float32, copy=True)
        base_squares[member] += _square_sum(origin)
        for sums, expert, adapter in zip(squares, experts, adapters, strict=True):
            if adapter is None:
                moved = expert.reader.rows(item.tensor, start, stop).to(torch.float32, copy=True)
                sums[member] += _square_sum(moved.sub_(origin))
    updates = [
        [math.sqrt(s) for s in sums] if adapter is None else [adapter.update_norm(item.tensor)] * item.members
        for sums, adapter in zip(squares, adapters, strict=True)
    ]
    return [math.sqrt(s) for s in base_squares], updates


def _adapter(expert: Source, base: Source) -> AdaptedReader | None:
    """The expert's LoRA factors, if it is an adapter of this very base: their norm carries no rounding."""
    if isinstance(expert.reader, AdaptedReader) and isinstance(expert.checkpoint, AdaptedCheckpoint):
        same_base = expert.checkpoint.base.files == base.checkpoint.files
        return expert.reader if same_base and isinstance(base.reader, CheckpointReader) else None
    return None


def published_norms(item: Scored, base: Source, experts: Sequence[Source]) -> Norms:
    origin = base.reader.whole(item.tensor).to(torch.bfloat16)
    moved = (expert.reader.whole(item.tensor).to(torch.bfloat16) for expert in experts)
    return [_bf16_norm(origin)], [[_bf16_norm(tensor - origin)] for tensor in moved]


def _blocks(spec: TensorSpec, members: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of rows of about `BLOCK_BYTES` with the member they belong to; none crosses a member's end."""
    height = spec.rows // members
    step = max(1, BLOCK_BYTES // max(spec.row_bytes, 1))
    for member in range(members):
        end = (member + 1) * height
        for start in range(member * height, end, step):
            yield member, start, min(start + step, end)


def _square_sum(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _bf16_norm(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dim=tuple(range(values.ndim))))
