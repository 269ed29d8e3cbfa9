"""Batches that fit the device: where memory runs out they are halved until they do. On a processor they are timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from polysafe.errors import ResourceError

Result = TypeVar("Result")

SECONDS = 10.0
"""What a batch should take on a processor: its results are kept when it ends, and an interruption loses it."""
_GROWTH = 4
"""How much larger than the one before it a batch may be: answers that ended early say little about the next ones."""


class Pace:
    """Sizes batches by the time that the one before took.

    Args:
        least: Rows that a batch has however long they take. Writing an answer is bound by reading the weights, once for
            all rows of a token: a few rows take hardly longer than one.
        seconds: What a batch should take.
        clock: What time it is, in seconds.
    """

    def __init__(
        self, least: int = 1, seconds: float = SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._least, self._seconds, self._clock = least, seconds, clock
        self._tokens = 0.0

    @classmethod
    def of(cls, device: torch.device, least: int = 1) -> Pace | None:
        """The pace of a device; None for accelerators, where memory alone is the limit."""
        return cls(least) if device.type == "cpu" else None

    def rows(self, length: int) -> int:
        """Rows of the next batch, of `length` tokens each."""
        return max(self._least, int(self._tokens / length))

    def timed(self, work: Callable[[range], Result], batch: range, length: int) -> Result:
        """Does a batch and takes its time."""
        began = self._clock()
        result = work(batch)
        took = self._clock() - began
        self._tokens = len(batch) * length * min(_GROWTH, self._seconds / took if took > 0 else _GROWTH)
        return result


def fitting_batches(
    lengths: Sequence[int],
    work: Callable[[range], Result],
    *,
    tokens: int,
    most: int,
    too_large: Callable[[int, torch.OutOfMemoryError], ResourceError],
    pace: Pace | None = None,
) -> Iterator[tuple[range, Result]]:
    """Does work batch by batch, in the order that is given; the longest first, so that what does not fit fails at once.

    Args:
        lengths: Tokens of every row with its padding and what it will grow to; none is longer than the one before it.
        work: Does the rows of a range.
        tokens: Tokens of a batch.
        most: Most rows of a batch.
        too_large: The error for a single row that does not fit.
        pace: Makes batches smaller than that by the time that they take; None for memory alone.

    Yields:
        The rows of each batch and what `work` made of them.

    Raises:
        ResourceError: A single row does not fit the device.
    """
    limit, done = tokens, 0
    while done < len(lengths):
        length = lengths[done]
        rows = min(most, limit // length)
        if pace is not None:
            rows = min(rows, pace.rows(length))
        batch = range(done, min(len(lengths), done + max(1, rows)))
        try:
            result = work(batch) if pace is None else pace.timed(work, batch, length)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise too_large(done, error) from error
            limit = max(1, limit // 2)
            continue
        done = batch.stop
        yield batch, result
