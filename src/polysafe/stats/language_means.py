"""Means over languages: a benchmark asks the same prompts in all of them, so that a prompt is one cluster.

The mean of the ends of the languages' intervals, in use before, is as wide as if all languages always agreed. Here the
dependence is measured instead (see `Design.effective_size`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polysafe.errors import DataError
from polysafe.stats.clusters import Design
from polysafe.stats.compare import Outcomes
from polysafe.stats.differences import interval_of_design
from polysafe.stats.intervals import Interval
from polysafe.stats.samples import codes, flags
from polysafe.stats.tests import mcnemar_clustered

_LEVEL = 0.95


@dataclass(frozen=True)
class MeanRate:
    """The unweighted mean of a rate of one model over several languages.

    Attributes:
        model: Name of the model.
        metric: A metric of `Row`, or `capability.all` for all ability tasks together.
        languages: The languages in the mean.
        rate: The mean, 0 … 1.
        n: Number of items, each prompt counted once in every language.
        clusters: Number of different prompts.
        low: Lower end of the 95 % interval, by clusters of one prompt.
        high: Upper end of it.
    """

    model: str
    metric: str
    languages: tuple[str, ...]
    rate: float
    n: int
    clusters: int
    low: float
    high: float

    @property
    def interval(self) -> Interval:
        """The interval of `rate`."""
        return Interval(self.low, self.high)


@dataclass(frozen=True)
class MeanShift:
    """How the unweighted mean of a rate over several languages moved, on the same items.

    Attributes:
        method: Name of the method.
        metric: A metric of `Row`; `capability.all` for all ability tasks together; `gap.before.<metric>` and
            `gap.after.<metric>` where the first mean is that of the same items in the pivot.
        languages: The languages in the mean.
        before: First mean, 0 … 1.
        after: Second mean.
        n: Number of items, each prompt counted once in every language.
        clusters: Number of different prompts.
        size: Number of independent pairs that would say as much of the difference.
        before_low: Lower end of the 95 % interval of `before`, by clusters of one prompt.
        before_high: Upper end of it.
        after_low: Lower end of the 95 % interval of `after`.
        after_high: Upper end of it.
        low: Lower end of the 95 % interval of `after` minus `before`, paired (see `paired_interval`).
        high: Upper end of it.
        p_value: Test of no difference in the sum over all items, by clusters (`mcnemar_clustered`).
    """

    method: str
    metric: str
    languages: tuple[str, ...]
    before: float
    after: float
    n: int
    clusters: int
    size: float
    before_low: float
    before_high: float
    after_low: float
    after_high: float
    low: float
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def interval(self) -> Interval:
        """The interval of the difference."""
        return Interval(self.low, self.high)


def mean_rate(
    model: str,
    metric: str,
    outcomes: Outcomes,
    clusters: Mapping[str, str] | None = None,
    possible: Outcomes | None = None,
) -> MeanRate:
    """The unweighted mean over cells, usually one per language.

    Args:
        model: The name that the result carries.
        metric: The name of the metric that the result carries.
        outcomes: The cells, (language, metric) -> item -> outcome, none of them empty; items are named alike in every
            language, and one item of one metric is one cluster.
        clusters: Item -> its cluster, for prompts that occur twice.
        possible: The same cells where every answer without a verdict counts as true; the interval holds both.

    Raises:
        DataError: There is no cell, or one is empty.
    """
    design, values = _layout(outcomes, clusters)
    most = values if possible is None else _values(possible, outcomes)
    low, high = design.wilson(values, _LEVEL).low, design.wilson(most, _LEVEL).high
    return MeanRate(model, metric, _languages(outcomes), design.mean(values), values.size, _count(design), low, high)


def mean_shift(
    method: str,
    metric: str,
    before: Outcomes,
    after: Outcomes,
    clusters: Mapping[str, str] | None = None,
    possible: tuple[Outcomes, Outcomes] | None = None,
) -> MeanShift:
    """The difference of two means over the same cells, paired by item.

    Args:
        method: The name that the result carries.
        metric: The name of the metric that the result carries.
        before: As for `mean_rate`.
        after: Outcomes of the same cells and items.
        clusters: As for `mean_rate`.
        possible: Both sides where every answer without a verdict counts as true; the intervals hold all that may be.

    Raises:
        DataError: There is no cell, one is empty, or the two differ in their items.
    """
    design, old = _layout(before, clusters)
    new = _values(after, before)
    most_old, most_new = (old, new) if possible is None else (_values(side, before) for side in possible)
    net = np.bincount(design.members, new - old)
    return MeanShift(
        method=method,
        metric=metric,
        languages=_languages(before),
        before=design.mean(old),
        after=design.mean(new),
        n=old.size,
        clusters=_count(design),
        size=design.effective_size(new - old, _LEVEL),
        before_low=design.wilson(old, _LEVEL).low,
        before_high=design.wilson(most_old, _LEVEL).high,
        after_low=design.wilson(new, _LEVEL).low,
        after_high=design.wilson(most_new, _LEVEL).high,
        low=interval_of_design(most_old, new, design, _LEVEL).low,
        high=interval_of_design(old, most_new, design, _LEVEL).high,
        p_value=mcnemar_clustered([int(change) for change in net]),
    )


def _layout(outcomes: Outcomes, clusters: Mapping[str, str] | None) -> tuple[Design, NDArray[np.float64]]:
    """All items, cell after cell: a prompt of one metric is a cluster, a cell is a stratum."""
    if not outcomes or not all(outcomes.values()):
        raise DataError("there is no mean over no items", where=", ".join(map("/".join, outcomes)) or None)
    named = clusters or {}
    members = [(metric, named.get(item, item)) for (_, metric), items in outcomes.items() for item in items]
    strata = [cell for cell, items in outcomes.items() for _ in items]
    design = Design.of(codes(members, len(members)), codes(strata, len(strata)))
    return design, _values(outcomes, outcomes)


def _values(outcomes: Outcomes, order: Outcomes) -> NDArray[np.float64]:
    """Outcomes in the order of the items of others, shape (items,)."""
    for cell, items in order.items():
        if outcomes.get(cell, {}).keys() != items.keys():
            raise DataError("the two sides of a mean differ in their items", where="/".join(cell))
    return flags([outcomes[cell][item] for cell, items in order.items() for item in items])


def _languages(outcomes: Outcomes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(language for language, _ in outcomes))


def _count(design: Design) -> int:
    return int(design.members.max()) + 1
