"""The difference of two rates over the same items: before and after an edit, or a pivot and a language."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polysafe.errors import DataError
from polysafe.stats.clusters import Design
from polysafe.stats.intervals import Interval, score_interval, two_sided_z
from polysafe.stats.samples import codes, paired_flags
from polysafe.stats.tests import mcnemar_clustered

_INSIDE = 1e-9
_PRECISION = 1e-15


@dataclass(frozen=True)
class Difference:
    """Two rates over the same items, and what their difference may be.

    Attributes:
        n: Number of pairs.
        clusters: Number of clusters that they form; `n` where pairs are independent.
        before: First rate, None where n = 0.
        after: Second rate.
        low: Lower end of the interval of after minus before.
        high: Upper end of it.
        p_value: Test of no difference: exact McNemar, by clusters where there are any.
    """

    n: int
    clusters: int
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    p_value: float | None

    @property
    def difference(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def interval(self) -> Interval | None:
        """The interval of the difference."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)


def paired_difference(
    before: Sequence[bool], after: Sequence[bool], clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Difference:
    """Compares two outcomes of the same items: rates, `paired_interval`, `mcnemar_clustered`.

    Without clusters these are Tango's interval and the exact McNemar test. The two are different methods: at the
    border an interval may touch zero and the test be significant, or the other way round.

    Args:
        before: First outcome of each item.
        after: Second outcome of each item, in the same order.
        clusters: Cluster of each item, or None where items are independent.
        level: Confidence level, strictly between 0 and 1.

    Raises:
        DataError: An item lacks an outcome or a cluster, or the level makes no sense.
    """
    first, second = paired_flags(before, after)
    interval = paired_interval(before, after, clusters, level)
    if interval is None:
        return Difference(0, 0, None, None, None, None, None)
    members = codes(clusters, first.size)
    net = np.bincount(members, second - first)
    return Difference(
        n=first.size,
        clusters=net.size,
        before=float(first.sum()) / first.size,
        after=float(second.sum()) / first.size,
        low=interval.low,
        high=interval.high,
        p_value=mcnemar_clustered([int(change) for change in net]),
    )


def tango(lost: int, gained: int, n: int, level: float = 0.95) -> Interval | None:
    """The score interval of a paired difference of rates (Tango 1998, equations 24 to 26).

    It holds every difference that the score test does not reject; that test estimates the share of changed items under
    the difference it tests, so the interval keeps a sensible width where nothing, or everything, changed.

    Args:
        lost: Items that were true before and false after.
        gained: Items that were false before and true after.
        n: All items.
        level: Confidence level, strictly between 0 and 1.

    Returns:
        The interval of after minus before, (gained - lost) / n, or None where n = 0.

    Raises:
        DataError: The counts or the level make no sense.
    """
    if min(lost, gained) < 0 or lost + gained > n:
        raise DataError(f"{lost} lost and {gained} gained among {n} items are not counts")
    z = two_sided_z(level)
    return _tango(lost, gained, n, z) if n else None


def paired_interval(
    before: Sequence[bool], after: Sequence[bool], clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> Interval | None:
    """An interval of a paired difference of rates over items of which some belong together.

    Without clusters this is `tango`. With clusters two approximations are joined, and the farther end of each is taken:

    * Tango's interval of the counts that `effective_size` independent pairs would have; too narrow where one pivot
      item is compared with several others and is hardly ever true, because the few clusters that count show no
      variance;
    * Newcombe's square-and-add of both clustered Wilson intervals with the correlation of the clusters' totals; too
      narrow where hardly any item changed, because the correlation is then near 1.

    Neither is taken from a paper in this form; the tests measure the coverage.

    Args:
        before: First outcome of each item.
        after: Second outcome of each item, in the same order.
        clusters: Cluster of each item, or None where items are independent.
        level: Confidence level, strictly between 0 and 1.

    Returns:
        The interval of after minus before, or None where there are no items.

    Raises:
        DataError: An item lacks an outcome or a cluster, or the level makes no sense.
    """
    first, second = paired_flags(before, after)
    members = codes(clusters, first.size)
    two_sided_z(level)
    return interval_of_design(first, second, Design.of(members), level) if first.size else None


def interval_of_design(
    before: NDArray[np.float64], after: NDArray[np.float64], design: Design, level: float = 0.95
) -> Interval:
    """`paired_interval` of the mean that a design describes.

    Args:
        before: First outcome of each item, 0 or 1, shape (n,), n ≥ 1.
        after: Second outcome of each item.
        design: What belongs together, and how items weigh.
        level: Confidence level, strictly between 0 and 1.
    """
    change = after - before
    size = design.effective_size(change, level)
    lost, gained = design.mean((change < 0).astype(float)), design.mean((change > 0).astype(float))
    score = _tango(lost * size, gained * size, size, two_sided_z(level))
    if int(design.members.max()) + 1 == change.size:
        return score
    added = _newcombe_clustered(before, after, design, level)
    return Interval(min(score.low, added.low), max(score.high, added.high))


def newcombe_paired(both: int, lost: int, gained: int, neither: int, level: float = 0.95) -> Interval | None:
    """The square-and-add interval of a paired difference of rates (Newcombe 1998, method 10).

    It joins the Wilson intervals of both rates, allowing for their correlation; a second opinion beside `tango`.

    Args:
        both: Items that were true before and after.
        lost: Items that were true before and false after.
        gained: Items that were false before and true after.
        neither: Items that were false both times.
        level: Confidence level, strictly between 0 and 1.

    Returns:
        The interval of after minus before, or None where there are no items.

    Raises:
        DataError: A count is negative, or the level makes no sense.
    """
    if min(both, lost, gained, neither) < 0:
        raise DataError(f"numbers of items cannot be negative: {both}, {lost}, {gained} and {neither}")
    z, n = two_sided_z(level), both + lost + gained + neither
    if n == 0:
        return None
    before, after = (both + lost) / n, (both + gained) / n
    old, new = score_interval(before, n, z), score_interval(after, n, z)
    return _square_and_add(before, old, after, new, _correlation(both, lost, gained, neither))


def _newcombe_clustered(
    before: NDArray[np.float64], after: NDArray[np.float64], design: Design, level: float
) -> Interval:
    """Square-and-add with the design effects of both rates and the correlation of the clusters' totals."""
    old, new = design.mean(before), design.mean(after)
    first, second = design.totals(before), design.totals(after)
    size = math.sqrt(float(first @ first) * float(second @ second))
    phi = float(first @ second) / size if size > 0.0 else 0.0
    return _square_and_add(old, design.wilson(before, level), new, design.wilson(after, level), phi)


def _square_and_add(before: float, old: Interval, after: float, new: Interval, phi: float) -> Interval:
    """An interval of after minus before from those of both and their correlation."""
    down = _hypotenuse(after - new.low, old.high - before, phi)
    up = _hypotenuse(new.high - after, before - old.low, phi)
    return Interval(max(after - before - down, -1.0), min(after - before + up, 1.0))


def _correlation(both: int, lost: int, gained: int, neither: int) -> float:
    """Newcombe's φ: a positive one is taken towards 0 by half an item, never past it."""
    n = both + lost + gained + neither
    margins = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    product = both * neither - lost * gained
    if margins == 0:
        return 0.0
    return (max(product - n / 2, 0.0) if product > 0 else product) / math.sqrt(margins)


def _hypotenuse(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _tango(lost: float, gained: float, n: float, z: float) -> Interval:
    """The interval from counts that need not be whole."""
    from scipy.optimize import brentq

    def excess(difference: float) -> float:
        distance = gained - lost - n * difference
        return distance * distance - z * z * n * _score_variance(lost, gained, n, difference)

    estimate = (gained - lost) / n
    # Where all items changed alike the variance at the estimate is 0 and the statistic 0/0; the roots lie beside it.
    nudge = _INSIDE if lost == gained == 0 or abs(estimate) == 1.0 else 0.0

    def end(far: float) -> float:
        return far if estimate == far else float(brentq(excess, far, estimate + far * nudge, xtol=_PRECISION))

    return Interval(end(-1.0), end(1.0))


def _score_variance(lost: float, gained: float, n: float, difference: float) -> float:
    """Variance of one item's change, with the share of lost items at its likeliest value under the difference."""
    linear = (2 * n - gained + lost) * difference - lost - gained
    discriminant = linear * linear + 8 * n * lost * difference * (1 - difference)
    share = (math.sqrt(max(discriminant, 0.0)) - linear) / (4 * n)
    return max(2 * share + difference * (1 - difference), 0.0)
