"""Batches that fit: every row once and in order, whatever the device can hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import ResourceError
from polysafe.probe.batches import Pace, fitting_batches


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


class Clock:
    """Time that passes while work is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def sizes(pace: Pace | None, clock: Clock, seconds: Callable[[int], float], rows: int = 4000) -> list[int]:
    """Rows of the batches of work that takes so long, of 64 tokens each."""

    def work(batch: range) -> None:
        clock.now += seconds(len(batch))

    batches = fitting_batches([64] * rows, work, tokens=16_384, most=256, too_large=refuse, pace=pace)
    return [len(batch) for batch, _ in batches]


def test_batches_grow_from_few_rows_to_ten_seconds() -> None:
    clock = Clock()
    found = sizes(Pace(clock=clock), clock, lambda rows: rows / 5)
    assert found[:3] == [1, 4, 16]
    assert all(49 <= rows <= 50 for rows in found[3:-1])  # seconds are rounded
    assert sum(found) == 4000


def test_batches_of_a_fast_model_reach_the_limit_of_memory() -> None:
    clock = Clock()
    assert sizes(Pace(clock=clock), clock, lambda _: 0.0)[-2] == 256


def test_a_batch_that_takes_too_long_is_followed_by_a_smaller_one() -> None:
    clock = Clock()
    assert sizes(Pace(least=8, clock=clock), clock, lambda rows: 1.0 if clock.now < 2 else rows * 0.5, 400)[:5] == [
        8, 32, 128, 20, 20,
    ]  # fmt: skip


def test_a_few_rows_stay_together_however_long_they_take() -> None:
    clock = Clock()
    assert set(sizes(Pace(least=8, clock=clock), clock, lambda _: 60.0, 80)) == {8}


def test_memory_limits_what_time_allows() -> None:
    clock, tried = Clock(), []

    def work(batch: range) -> None:
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError

    batches = fitting_batches([10] * 20, work, tokens=100, most=8, too_large=refuse, pace=Pace(least=8, clock=clock))
    assert sum(len(batch) for batch, _ in batches) == 20
    assert max(tried[2:]) <= 3


def test_accelerators_have_no_pace() -> None:
    assert Pace.of(torch.device("cuda")) is None
    assert Pace.of(torch.device("cpu")) is not None
