"""Means of a number per item, such as log-odds: intervals, and paired gaps to a pivot language."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

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
        span, _ = student_interval(list(items.values()), _clusters(items, clusters))
        mean = sum(items.values()) / len(items) if items else None
        low, high = (span.low, span.high) if span else (None, None)
        rows.append(MeanRow(model, language, metric, mean, len(items), low, high))
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
        tested = [gap.p_value for gap in gaps if gap.p_value is not None]
        adjusted = iter(adjust_p(tested, adjustment))
        found += [gap if gap.p_value is None else replace(gap, p_adjusted=next(adjusted)) for gap in gaps]
    return found


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
    if not pairs:
        return MeanGap(model, language, pivot, metric, None, 0, None, None, None)
    span, p = student_interval(list(pairs.values()), _clusters(pairs, clusters))
    low, high = (span.low, span.high) if span else (None, None)
    return MeanGap(model, language, pivot, metric, sum(pairs.values()) / len(pairs), len(pairs), low, high, p)


def _clusters(items: Mapping[str, float], clusters: Mapping[str, str] | None) -> list[str] | None:
    return None if not clusters else [clusters.get(item, item) for item in items]
