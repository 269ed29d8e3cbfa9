"""Means of a number per item, such as log-odds: intervals, and paired gaps to a pivot language."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from polysafe.stats.intervals import Interval
from polysafe.stats.multiplicity import Adjustment, adjust_p

Values = Mapping[tuple[str, str], Mapping[str, float]]
"""(language, metric) -> item -> its number."""


@dataclass(frozen=True)
class MeanRow:
    """The mean of one number of one model in one language.

    Attributes:
        model: Name of the model.
        language: Language code.
        metric: What the number is.
        mean: Mean over the items, None where there is none.
        n: Number of items.
        low: Lower end of the 95 % interval of the mean; None where it has none (fewer than two clusters).
        high: Upper end of it.
    """

    model: str
    language: str
    metric: str
    mean: float | None
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MeanGap:
    """How the mean of a number differs between a language and the pivot, on the same prompts.

    Attributes:
        model: Name of the model.
        language: Language code.
        pivot: Language code of the pivot.
        metric: What the number is.
        difference: Mean over the pairs of the language's number minus the pivot's; None without pairs.
        n: Number of pairs.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end of it.
        p_value: Student's paired test of no difference, by clusters.
        p_adjusted: `p_value` adjusted over the languages of this metric.
    """

    model: str
    language: str
    pivot: str
    metric: str
    difference: float | None
    n: int
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None = None


@dataclass(frozen=True)
class MeanChange:
    """How the mean of a number changed by an edit, on the same prompts.

    Attributes:
        method: Name of the method.
        language: Language code.
        metric: What the number is.
        before: Mean of the model that the edit starts from, over the pairs; None without pairs.
        after: Mean of the edited model.
        n: Number of pairs.
        low: Lower end of the 95 % interval of `after` minus `before`.
        high: Upper end of it.
        p_value: Student's paired test of no change, by clusters.
        p_adjusted: `p_value` adjusted over the languages of this metric.
    """

    method: str
    language: str
    metric: str
    before: float | None
    after: float | None
    n: int
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None = None

    @property
    def difference(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before


def student_interval(
    values: Sequence[float], clusters: Sequence[str] | None = None, level: float = 0.95
) -> tuple[Interval | None, float | None]:
    """Student's interval of a mean, and the p-value of the test that the mean is 0.

    With clusters, the variance is that of the clusters' totals of residuals (the sandwich estimator with its correction
    G/(G−1)), and there are G − 1 degrees of freedom for G clusters. Each value as its own cluster gives the textbook's.

    Args:
        values: The numbers.
        clusters: Cluster of each, or None where they are independent.
        level: Confidence level.

    Returns:
        The interval and the p-value; None for both with fewer than two clusters.
    """
    from scipy.stats import t as student

    numbers = np.asarray(values, dtype=np.float64)
    codes = np.unique(clusters, return_inverse=True)[1] if clusters is not None else np.arange(numbers.size)
    groups = int(codes.max()) + 1 if numbers.size else 0
    if groups < 2:
        return None, None
    mean = float(numbers.mean())
    totals = np.bincount(codes, weights=numbers - mean, minlength=groups)
    error = math.sqrt(groups / (groups - 1) * float(totals @ totals)) / numbers.size
    half = float(student.ppf(0.5 + level / 2, groups - 1)) * error
    p = float(2 * student.sf(abs(mean) / error, groups - 1)) if error else float(mean == 0)
    return Interval(mean - half, mean + half), p


def mean_rows(model: str, values: Values, clusters: Mapping[str, str] | None = None) -> list[MeanRow]:
    """The mean of every cell with its interval.

    Args:
        model: The name that the rows carry.
        values: The numbers.
        clusters: Item -> its cluster, for items that occur twice; others are on their own.
    """
    rows = []
    for (language, metric), items in values.items():
        low, high, _ = _tested(items, clusters)
        rows.append(MeanRow(model, language, metric, _mean(items), len(items), low, high))
    return rows


def mean_gaps(
    model: str,
    values: Values,
    pivot: str,
    clusters: Mapping[str, str] | None = None,
    adjustment: Adjustment = "holm",
) -> list[MeanGap]:
    """Compares every language with the pivot, prompt by prompt; metrics that the pivot lacks are left out.

    Args:
        model: The name that the rows carry.
        values: The numbers; items are named alike in every language.
        pivot: Language code of the pivot.
        clusters: As for `mean_rows`.
        adjustment: Correction of the p-values over the languages of each metric.
    """
    by_metric: defaultdict[str, dict[str, Mapping[str, float]]] = defaultdict(dict)
    for (language, metric), items in values.items():
        by_metric[metric][language] = items
    found = []
    for metric, languages in by_metric.items():
        base = languages.pop(pivot, None)
        if base is None:
            continue
        gaps = [_gap(model, code, pivot, metric, items, base, clusters) for code, items in languages.items()]
        found += _adjusted(gaps, adjustment)
    return found


def mean_changes(
    method: str,
    before: Values,
    after: Values,
    clusters: Mapping[str, str] | None = None,
    adjustment: Adjustment = "holm",
) -> list[MeanChange]:
    """Compares a model before and after an edit, prompt by prompt; prompts that either lacks are left out.

    Args:
        method: The name that the rows carry.
        before: Numbers of the model that the edit starts from.
        after: Numbers of the edited model.
        clusters: As for `mean_rows`.
        adjustment: Correction of the p-values over the languages of each metric.
    """
    by_metric: defaultdict[str, list[MeanChange]] = defaultdict(list)
    for (language, metric), items in before.items():
        new = after.get((language, metric), {})
        moved = {item: new[item] - value for item, value in items.items() if item in new}
        old, now = (_mean({item: cell[item] for item in moved}) for cell in (items, new))
        by_metric[metric].append(MeanChange(method, language, metric, old, now, len(moved), *_tested(moved, clusters)))
    return [change for changes in by_metric.values() for change in _adjusted(changes, adjustment)]


Tested = TypeVar("Tested", MeanGap, MeanChange)


def _adjusted(rows: Sequence[Tested], adjustment: Adjustment) -> list[Tested]:
    """The rows with their p-values adjusted for each other; those without one as they are."""
    adjusted = iter(adjust_p([row.p_value for row in rows if row.p_value is not None], adjustment))
    return [row if row.p_value is None else replace(row, p_adjusted=next(adjusted)) for row in rows]


def _gap(
    model: str,
    language: str,
    pivot: str,
    metric: str,
    items: Mapping[str, float],
    base: Mapping[str, float],
    clusters: Mapping[str, str] | None,
) -> MeanGap:
    pairs = {item: items[item] - base[item] for item in items if item in base}
    return MeanGap(model, language, pivot, metric, _mean(pairs), len(pairs), *_tested(pairs, clusters))


def _mean(items: Mapping[str, float]) -> float | None:
    return sum(items.values()) / len(items) if items else None


def _tested(
    items: Mapping[str, float], clusters: Mapping[str, str] | None
) -> tuple[float | None, float | None, float | None]:
    """Both ends of the interval of the mean, and the p-value; None for all where there is none."""
    names = [clusters.get(item, item) for item in items] if clusters else None
    span, p = student_interval(list(items.values()), names)
    return (None, None, p) if span is None else (span.low, span.high, p)
