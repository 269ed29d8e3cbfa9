from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.report.charts.axis import SHARES, Axis, axis_of

DIFFERENCES = st.lists(st.floats(-1, 1), max_size=8)


@given(DIFFERENCES, st.booleans())
def test_holds_zero_and_all_values_in_few_round_steps(values: list[float], points: bool) -> None:
    axis = axis_of(values, points=points)
    assert axis.low <= min([0.0, *values]) + 1e-6
    assert axis.high >= max([0.0, *values]) - 1e-6
    assert 0.0 in axis.ticks
    assert 2 <= len(axis.ticks) <= 6
    steps = {round(b - a, 4) for a, b in zip(axis.ticks, axis.ticks[1:], strict=False)}
    assert len(steps) == 1


@given(DIFFERENCES, st.floats(-2, 2), st.floats(-2, 2))
def test_positions_are_in_order_and_never_outside(values: list[float], one: float, other: float) -> None:
    axis = axis_of(values)
    low, high = sorted((one, other))
    assert 0.0 <= axis.share(low) <= axis.share(high) <= 1.0
    assert (axis.share(axis.low), axis.share(axis.high)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([], (0.0, 0.01)),
        ([0.9], (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ([-0.1, 0.3], (-0.1, 0.0, 0.1, 0.2, 0.3)),
        ([-1.0, 1.0], (-1.0, -0.5, 0.0, 0.5, 1.0)),
    ],
)
def test_known_axes(values: list[float], ticks: tuple[float, ...]) -> None:
    assert axis_of(values).ticks == ticks


def test_ticks_read_as_percent_or_as_signed_points() -> None:
    assert SHARES.label(0.25) == "25\N{NARROW NO-BREAK SPACE}%"
    points = Axis((-0.25, 0.0, 0.25), points=True)
    assert [points.label(tick) for tick in points.ticks] == ["−25", "0", "+25"]
