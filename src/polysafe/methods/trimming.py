"""Exact trimming of task vectors with bounded memory.

TIES keeps the largest entries of a task vector by magnitude. The smallest kept magnitude is found by radix
selection: magnitudes are non-negative float32 numbers, whose bit patterns order as they do, so one pass
counts the upper 16 bits and a second pass the lower 16 bits of the entries in the deciding bucket. Nothing
but two tables of counts is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from polysafe.checkpoint.reader import row_blocks
from polysafe.errors import CheckpointError
from polysafe.methods.base import Source

_BUCKETS = 1 << 16


def trimming_threshold(base: Source, expert: Source, tensors: Sequence[str], density: float) -> float:
    """The magnitude from which on entries of the task vector of `tensors` are kept.

    The `density` share of largest magnitudes (at least one entry) is kept, and whatever equals the smallest
    of them. Magnitudes are compared as float32; the threshold is the smallest float64 that rounds to the
    last one kept, so that comparing exact differences with it keeps the same entries.

    Raises:
        CheckpointError: A task vector is not finite.
    """
    total = sum(base.reader.spec(name).numel for name in tensors)
    rank = max(1, round(density * total))
    if rank >= total:
        return 0.0
    upper = torch.zeros(_BUCKETS, dtype=torch.int64)
    for codes in _codes(base, expert, tensors):
        upper += torch.bincount(codes >> 16, minlength=_BUCKETS)
    bucket, rank = _bucket_of(upper, rank)
    lower = torch.zeros(_BUCKETS, dtype=torch.int64)
    for codes in _codes(base, expert, tensors):
        lower += torch.bincount(codes[codes >> 16 == bucket] & (_BUCKETS - 1), minlength=_BUCKETS)
    code = bucket << 16 | _bucket_of(lower, rank)[0]
    return _smallest_rounding_to(np.int32(code).view(np.float32))


def _codes(base: Source, expert: Source, tensors: Sequence[str]) -> Iterator[torch.Tensor]:
    """Bit patterns of the magnitudes of the task vector as int32, block by block."""
    for name in tensors:
        for start, stop in row_blocks(base.reader.spec(name)):
            origin = base.reader.rows(name, start, stop).to(torch.float64, copy=True)
            delta = expert.reader.rows(name, start, stop).to(torch.float64).sub(origin)
            if not bool(torch.isfinite(delta).all()):
                raise CheckpointError(
                    f"tensor {name} of {base.name!r} or {expert.name!r} holds NaN or infinity",
                    where=expert.reader.spec(name).file,
                    remedy="a checkpoint with such weights is broken; fetch or train it again",
                )
            yield delta.to(torch.float32).abs_().view(torch.int32).flatten()


def _bucket_of(counts: torch.Tensor, rank: int) -> tuple[int, int]:
    """The bucket that holds the entry of this rank, counted from the top, and its rank within the bucket."""
    from_top = counts.flip(0).cumsum(0)
    steps = int(torch.searchsorted(from_top, rank))
    above = int(from_top[steps - 1]) if steps else 0
    return len(counts) - 1 - steps, rank - above


def _smallest_rounding_to(kept: np.float32) -> float:
    if kept == 0:
        return 0.0
    middle = (np.float64(np.nextafter(kept, np.float32(0))) + np.float64(kept)) / 2
    return float(middle if np.float32(middle) == kept else np.nextafter(middle, np.inf))
