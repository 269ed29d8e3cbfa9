"""Batches that fit: every row once and in order, whatever the device can hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import ResourceError
from polysafe.probe.batches import fitting_batches


def refuse(row: int, error: torch.OutOfMemoryError) -> ResourceError:
    return ResourceError(f"row {row} does not fit: {error}")


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 400), st.integers(1, 8), st.integers(50, 400))
def test_every_row_is_done_once_in_order_within_all_limits(
    lengths: list[int], tokens: int, most: int, room: int
) -> None:
    rows = sorted(lengths, reverse=True)
    tried: list[range] = []

    def work(batch: range) -> list[int]:
        tried.append(batch)
        if len(batch) * rows[batch.start] > room:
            raise torch.OutOfMemoryError
        return [rows[place] for place in batch]

    found = list(fitting_batches(rows, work, tokens=tokens, most=most, too_large=refuse))
    assert [length for _, lengths in found for length in lengths] == rows
    assert [place for batch, _ in found for place in batch] == list(range(len(rows)))
    for batch in tried:
        assert len(batch) <= most
        assert len(batch) == 1 or len(batch) * rows[batch.start] <= tokens


def test_a_row_that_fits_no_device_is_named() -> None:
    def work(batch: range) -> None:
        if 1 in batch:
            raise torch.OutOfMemoryError

    batches = fitting_batches([9, 8, 7], work, tokens=100, most=8, too_large=refuse)
    assert next(batches)[0] == range(1)
    with pytest.raises(ResourceError, match="row 1 does not fit"):
        next(batches)
