"""Axes of charts: round ticks that hold the data, and how they read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
_SLACK = 1e-9


@dataclass(frozen=True)
class Axis:
    """A range of rates, of differences of rates, or of other numbers, with its ticks.

    Attributes:
        ticks: Round values in ascending order; the first and the last are the ends of the axis.
        points: Whether values are differences of rates, which read as signed percentage points.
        plain: Whether they are numbers that read as they are.
    """

    ticks: tuple[float, ...]
    points: bool = False
    plain: bool = False

    @property
    def low(self) -> float:
        """The lower end."""
        return self.ticks[0]

    @property
    def high(self) -> float:
        """The upper end."""
        return self.ticks[-1]

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at the lower end to 1 at the upper; what is beyond an end lies on it."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def label(self, tick: float) -> str:
        """A tick as readers see it."""
        if self.plain:
            return f"{tick:+g}".replace("-", "\N{MINUS SIGN}") if tick else "0"
        if self.points:
            return f"{100 * tick:+.0f}".replace("-", "\N{MINUS SIGN}") if round(100 * tick) else "0"
        return f"{100 * tick:.0f}\N{NARROW NO-BREAK SPACE}%"


SHARES = Axis((0.0, 0.25, 0.5, 0.75, 1.0))
"""All rates, from 0 to 100 %."""


def axis_of(
    values: Iterable[float], *, points: bool = False, plain: bool = False, zero: bool = True, most: int = 5
) -> Axis:
    """The shortest axis of round ticks that holds all values.

    Args:
        values: Rates in 0 … 1, differences of rates in -1 … 1, or other numbers.
        points: Whether they are differences of rates.
        plain: Whether they are other numbers.
        zero: Whether the axis holds zero as well.
        most: Steps between the ends, at most; at least 4.
    """
    known = [0.0, *values] if zero else list(values)
    low, high = min(known), max(known)
    for step in _STEPS:
        first, last = math.floor(low / step + _SLACK), math.ceil(high / step - _SLACK)
        last = max(last, first + 1)
        if last - first <= most:
            break
    return Axis(tuple(round(number * step, 4) for number in range(first, last + 1)), points, plain)
