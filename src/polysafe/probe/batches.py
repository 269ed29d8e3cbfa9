"""Batches that fit the device: where memory runs out they are halved until they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from polysafe.errors import ResourceError

Result = TypeVar("Result")


def fitting_batches(
    lengths: Sequence[int],
    work: Callable[[range], Result],
    *,
    tokens: int,
    most: int,
    too_large: Callable[[int, torch.OutOfMemoryError], ResourceError],
) -> Iterator[tuple[range, Result]]:
    """Does work batch by batch, in the order that is given; the longest first, so that what does not fit fails at once.

    Args:
        lengths: Tokens of every row with its padding and what it will grow to; none is longer than the one before it.
        work: Does the rows of a range.
        tokens: Tokens of a batch.
        most: Most rows of a batch.
        too_large: The error for a single row that does not fit.

    Yields:
        The rows of each batch and what `work` made of them.

    Raises:
        ResourceError: A single row does not fit the device.
    """
    limit, done = tokens, 0
    while done < len(lengths):
        rows = max(1, min(most, limit // lengths[done]))
        batch = range(done, min(len(lengths), done + rows))
        try:
            result = work(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise too_large(done, error) from error
            limit = max(1, limit // 2)
            continue
        done = batch.stop
        yield batch, result
