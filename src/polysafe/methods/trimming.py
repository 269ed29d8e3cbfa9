"""Exact trimming of task vectors with bounded memory.

TIES keeps the largest entries of a task vector by magnitude. The smallest kept magnitude is found by radix
selection: magnitudes are non-negative float32 numbers, whose bit patterns order as they do, so one pass
counts the upper 16 bits and a second pass the lower 16 bits of the entries in the deciding bucket. Nothing
but two tables of counts is held.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import row_blocks
from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes
from polysafe.methods.scores import remembered
from polysafe.threads import threads

_KEPT = "thresholds"
_BUCKETS = 1 << 16
_HELD = 4 << 20
"""Largest number of entries that are read once and kept for the second pass, 16 MiB of magnitudes."""
_INFINITE = 0x7F80
"""Upper half of the bit pattern of infinity; those of NaN are not below it."""


def trimming_thresholds(
    base: Source, expert: Source, parts: Sequence[Sequence[str]], density: float, *, floor: bool = False
) -> list[float]:
    """The thresholds of several groups of tensors; as for `trimming_threshold`.

    Nothing is read of files that have not changed since (`files.memory`).

    Raises:
        CheckpointError: A task vector is not finite.
    """
    about = [density, hashlib.sha256(json_bytes([list(part) for part in parts])).hexdigest()]
    settings = [*about, *(["floor"] if floor else [])]

    def measure() -> list[float]:
        return [trimming_threshold(base, expert, part, density, floor=floor) for part in parts]

    return remembered(_KEPT, base, expert, settings, len(parts), measure)


def trimming_threshold(
    base: Source, expert: Source, tensors: Sequence[str], density: float, *, floor: bool = False
) -> float:
    """The magnitude from which on entries of the task vector of `tensors` are kept.

    The `density` share of largest magnitudes (at least one entry) is kept, rounded to a whole number, or with `floor`
    down to one, and whatever equals the smallest of them. Magnitudes are compared as float32; the threshold is the
    smallest float64 that rounds to the last one kept, so that comparing exact differences with it keeps the same
    entries.

    Raises:
        CheckpointError: A task vector is not finite.
    """
    with threads(1):
        return _threshold(base, expert, tensors, density, floor)


def _threshold(base: Source, expert: Source, tensors: Sequence[str], density: float, floor: bool) -> float:
    total = sum(base.reader.spec(name).numel for name in tensors)
    rank = max(1, math.floor(density * total) if floor else round(density * total))
    if rank >= total:
        return 0.0
    held = list(_codes(base, expert, tensors)) if total <= _HELD else None
    upper = torch.zeros(_BUCKETS, dtype=torch.int64)
    for codes in held or _codes(base, expert, tensors):
        counts = torch.bincount(codes >> 16)  # as many as there are: a full table for every block takes as long again
        upper[: len(counts)] += counts
    if bool(upper[_INFINITE:].any()):
        _require_finite(base, expert, tensors)
    bucket, rank = _bucket_of(upper, rank)
    lower = torch.zeros(_BUCKETS, dtype=torch.int64)
    for codes in held or _codes(base, expert, tensors):
        array = codes.numpy()  # which picks a few out of many several times faster
        np.add.at(lower.numpy(), array[array >> 16 == bucket] & (_BUCKETS - 1), 1)
    code = bucket << 16 | _bucket_of(lower, rank)[0]
    return _smallest_rounding_to(np.int32(code).view(np.float32))


def _codes(base: Source, expert: Source, tensors: Sequence[str]) -> Iterator[torch.Tensor]:
    """Bit patterns of the magnitudes of the task vector as int32, block by block.

    A difference of 16-bit numbers, which float64 holds, rounds to the same float32 when it is taken in float32 at once.
    """
    for name in tensors:
        narrow = all(torch_dtype(source.reader.spec(name).dtype).itemsize <= 2 for source in (base, expert))
        width = torch.float32 if narrow else torch.float64
        for start, stop in row_blocks(base.reader.spec(name)):
            origin = base.reader.rows(name, start, stop).to(width)
            delta = expert.reader.rows(name, start, stop).to(width, copy=True).sub_(origin)
            yield delta.to(torch.float32).abs_().view(torch.int32).flatten()


def _require_finite(base: Source, expert: Source, tensors: Sequence[str]) -> None:
    for name in tensors:
        for start, stop in row_blocks(base.reader.spec(name)):
            origin, value = (source.reader.rows(name, start, stop).to(torch.float64) for source in (base, expert))
            if not bool(torch.isfinite(value - origin).all()):
                raise CheckpointError(
                    f"tensor {name} of {base.name!r} or {expert.name!r} holds NaN or infinity",
                    where=expert.reader.spec(name).file,
                    remedy="a checkpoint with such weights is broken; fetch or train it again",
                )


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
