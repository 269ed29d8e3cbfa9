"""Two edits of one model against each other: the same prompts, over several languages and tasks.

A mean over languages counts one prompt once per language, so its items come in clusters; a mean over tasks puts parts
together that share no prompt. Both have an interval and a test here that know it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from polysafe.stats.attacks import UNDER
from polysafe.stats.clusters import wilson_clustered
from polysafe.stats.compare import Outcomes
from polysafe.stats.differences import Difference, paired_difference
from polysafe.stats.gaps import POOLED
from polysafe.stats.intervals import Interval
from polysafe.stats.multiplicity import Adjustment, adjust_p
from polysafe.stats.rows import RateRow, Row
from polysafe.stats.tests import mcnemar_clustered

AGAINST = " against "
"""Between two methods in the method of a row that compares them."""

_GRAIN = 12
"""Steps in which the weights of tasks of unequal size are counted by the test of their mean."""


@dataclass(frozen=True)
class Versus:
    """How one metric differs between two edits of the same model, on the same prompts.

    Attributes:
        method: The first method.
        other: The method that it is held against.
        metric: `unsafe`, `over_refusal`, or `capability.all` for the mean of the ability tasks.
        before: Rate of `other`, 0 … 1.
        after: Rate of `method`.
        n: Number of pairs: prompts times languages.
        clusters: Number of prompts that they come from.
        low: Lower end of the 95 % interval of `after` minus `before`.
        high: Upper end of it.
        p_value: Test of no difference (see `mean_difference`).
        p_adjusted: `p_value` adjusted over the pairs of one family and metric.
    """

    method: str
    other: str
    metric: str
    before: float | None
    after: float | None
    n: int
    clusters: int
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None = None

    @property
    def difference(self) -> float | None:
        """The rate of `method` minus that of `other`."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def interval(self) -> Interval | None:
        """The interval of the difference."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)

    @property
    def turned(self) -> Versus:
        """The same with the two methods in the other order."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(
            self, method=self.other, other=self.method, before=self.after, after=self.before, low=low, high=high
        )


def mean_difference(before: Outcomes, after: Outcomes, clusters: Mapping[str, str] | None = None) -> Difference:
    """Two models over the same items of several languages and metrics: each metric weighs the same.

    Within a metric all pairs of one prompt are a cluster: `paired_difference`. Over several metrics, which share no
    prompt, the distances to the near ends of their intervals add up in squares (Zou & Donner 2008), and the test is the
    exact sign-flip test of the clusters' weighted changes, with weights rounded to twelfths of the smallest; rounding
    moves the weights, not the level of the test.

    Args:
        before: Outcomes of the first model. Items have the same id in every language, and no two metrics share one.
        after: Outcomes of the second model in the same cells and items.
        clusters: Item -> its cluster, for prompts that occur twice; others are on their own.

    Raises:
        DataError: An item lacks an outcome.
    """
    parts: dict[str, Difference] = {}
    changes: list[tuple[int, list[int]]] = []
    for metric, cells in _by_metric(before).items():
        names = [(cell, item) for cell in cells for item in before[cell]]
        members = [_cluster(item, clusters) for _, item in names]
        old, new = ([side[cell][item] for cell, item in names] for side in (before, after))
        part = paired_difference(old, new, members)
        if part.n:
            parts[metric] = part
            changes.append((part.n, _net(old, new, members)))
    differences = list(parts.values())
    if len(differences) < 2:
        return differences[0] if differences else Difference(0, 0, None, None, None, None, None)
    means = [_mean([getattr(part, name) for part in differences]) for name in ("before", "after")]
    spans = [(part.difference or 0.0, part.interval or Interval(-1.0, 1.0)) for part in differences]
    low, high = _added(spans)
    return Difference(
        n=sum(part.n for part in differences),
        clusters=sum(part.clusters for part in differences),
        before=means[0],
        after=means[1],
        low=max(low, -1.0),
        high=min(high, 1.0),
        p_value=_sign_flip(changes),
    )


def mean_rate(model: str, metric: str, outcomes: Outcomes, clusters: Mapping[str, str] | None = None) -> RateRow:
    """The rate of one model over several languages and metrics, each metric weighing the same.

    Args:
        model: The name that the row carries.
        metric: The metric that the row carries.
        outcomes: The outcomes, as for `mean_difference`.
        clusters: As for `mean_difference`.
    """
    spans: list[tuple[float, Interval]] = []
    n = 0
    for cells in _by_metric(outcomes).values():
        flags = [(_cluster(item, clusters), holds) for cell in cells for item, holds in outcomes[cell].items()]
        interval = wilson_clustered([holds for _, holds in flags], [cluster for cluster, _ in flags])
        if interval is not None:
            spans.append((sum(holds for _, holds in flags) / len(flags), interval))
            n += len(flags)
    if not spans:
        return RateRow(model, POOLED, metric, None, 0)
    rate = _mean([each for each, _ in spans])
    low, high = spans[0][1] if len(spans) == 1 else _added(spans)
    return RateRow(model, POOLED, metric, rate, n, min(max(low, 0.0), rate), max(min(high, 1.0), rate))


def adjust_versus(pairs: Sequence[Versus], adjustment: Adjustment = "holm") -> list[Versus]:
    """Fills in `p_adjusted` over the pairs of each metric: one family, one claim."""
    families: defaultdict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        if pair.p_value is not None:
            families[pair.metric].append(index)
    adjusted = list(pairs)
    for members in families.values():
        tested = [p for index in members if (p := pairs[index].p_value) is not None]
        for index, p in zip(members, adjust_p(tested, adjustment), strict=True):
            adjusted[index] = replace(pairs[index], p_adjusted=p)
    return adjusted


def versus_row(pair: Versus, before: RateRow, after: RateRow) -> Row:
    """The comparison of two methods as a row of `results.json`: method `A against B`, language `all`.

    Args:
        pair: The comparison.
        before: Rate of the other method on the same items, for its interval.
        after: Rate of the method.
    """
    return Row(
        method=f"{pair.method}{AGAINST}{pair.other}",
        language=POOLED,
        metric=pair.metric,
        before=pair.before,
        after=pair.after,
        n=pair.n,
        before_low=before.low,
        before_high=before.high,
        after_low=after.low,
        after_high=after.high,
        p_value=pair.p_value,
        p_adjusted=pair.p_adjusted,
    )


def of_methods(rows: Sequence[Row]) -> list[Row]:
    """The rows that hold a method against the model that it starts from, on published prompts.

    Rows of method against method are left out, and those under an attack.
    """
    return [row for row in rows if UNDER not in row.method and not (AGAINST in row.method and row.language == POOLED)]


def _by_metric(outcomes: Outcomes) -> dict[str, list[tuple[str, str]]]:
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for cell in outcomes:
        found[cell[1]].append(cell)
    return dict(found)


def _cluster(item: str, clusters: Mapping[str, str] | None) -> str:
    return clusters.get(item, item) if clusters else item


def _net(old: Sequence[bool], new: Sequence[bool], members: Sequence[str]) -> list[int]:
    """Items of each cluster that became true, minus those that became false."""
    net: defaultdict[str, int] = defaultdict(int)
    for first, second, member in zip(old, new, members, strict=True):
        net[member] += int(second) - int(first)
    return list(net.values())


def _sign_flip(parts: Sequence[tuple[int, Sequence[int]]]) -> float:
    """Test of the mean over parts of unequal size, of (number of items, net change of each cluster)."""
    largest = max(n for n, _ in parts)
    weights = [round(_GRAIN * largest / n) for n, _ in parts]
    common = math.gcd(*weights)
    return mcnemar_clustered(
        [weight // common * change for weight, (_, net) in zip(weights, parts, strict=True) for change in net]
    )


def _added(spans: Sequence[tuple[float, Interval]]) -> tuple[float, float]:
    """Ends of the interval of a mean of independent parts (Zou & Donner 2008)."""
    mean = _mean([value for value, _ in spans])
    down = math.hypot(*(value - span.low for value, span in spans)) / len(spans)
    up = math.hypot(*(span.high - value for value, span in spans)) / len(spans)
    return mean - down, mean + up


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
