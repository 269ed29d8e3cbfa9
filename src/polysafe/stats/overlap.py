"""What two sets have in common by chance: the level that an overlap has to be seen against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polysafe.errors import DataError

_REACH = 12.0
"""Standard deviations around the mean that hold all but a negligible part of a hypergeometric distribution."""


@dataclass(frozen=True)
class ChanceOverlap:
    """The Jaccard index of sets of given sizes, drawn at random.

    Attributes:
        expected: Its mean, 0 … 1.
        low: Lower end of the range that holds at least 95 % of draws.
        high: Upper end of it.
    """

    expected: float
    low: float
    high: float


def chance_overlap(strata: Sequence[tuple[int, int, int]], level: float = 0.95) -> ChanceOverlap:
    """The Jaccard index of two sets that are drawn independently, within each stratum, without replacement.

    In a stratum of N units of which the sets hold a and b, the number in common is hypergeometric; numbers of different
    strata add up. All is summed exactly. Two empty sets have index 1.

    Args:
        strata: N, a and b of each stratum, as every layer and projection is one.
        level: Share of draws that the range holds at least, strictly between 0 and 1.

    Raises:
        DataError: A set is larger than its stratum, or a number is negative.
    """
    from scipy.stats import hypergeom

    for units, first, second in strata:
        if not 0 <= min(first, second) <= max(first, second) <= units:
            raise DataError(f"sets of {first} and {second} of {units} units are not possible")
    shares, least = np.ones(1), 0
    for units, first, second in strata:
        low, high = max(0, first + second - units), min(first, second)
        if high > low:
            mean, width = hypergeom.mean(units, first, second), hypergeom.std(units, first, second)
            low = max(low, math.floor(mean - _REACH * width))
            high = min(high, math.ceil(mean + _REACH * width))
        least += low
        shares = np.convolve(shares, hypergeom.pmf(np.arange(low, high + 1), units, first, second))
    both = sum(first + second for _, first, second in strata)
    if not both:
        return ChanceOverlap(1.0, 1.0, 1.0)
    common = least + np.arange(shares.size)
    index, below = common / (both - common), np.cumsum(shares / shares.sum())
    tail = (1 - level) / 2
    last = shares.size - 1
    return ChanceOverlap(
        expected=float(index @ shares / shares.sum()),
        low=float(index[min(int(np.searchsorted(below, tail)), last)]),
        high=float(index[min(int(np.searchsorted(below, 1 - tail)), last)]),
    )
