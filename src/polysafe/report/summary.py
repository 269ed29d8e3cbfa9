"""Means over languages: what a method did, in a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from polysafe.report.data import ReportData
from polysafe.report.names import CAPABILITY, SAFETY_METRICS, in_order, method_kind, tier_name
from polysafe.report.telling import broken_shares
from polysafe.stats.intervals import Interval, mean_interval
from polysafe.stats.rows import Row

SIGNIFICANT = 0.05
"""Adjusted p-values below this are called significant."""


@dataclass(frozen=True)
class Change:
    """The unweighted mean of several rows, before and after.

    Attributes:
        before: Mean rate before, 0 … 1.
        after: Mean rate after.
        before_interval: Mean of the rows' intervals (see `polysafe.stats.mean_interval`).
        after_interval: The same after.
        languages: The languages in the mean; part of the name of the number.
        items: Number of items in each row.
    """

    before: float
    after: float
    before_interval: Interval | None
    after_interval: Interval | None
    languages: tuple[str, ...]
    items: tuple[int, ...]

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def size(self) -> str:
        """The number of items, as 3 × 48 where all rows have the same."""
        if len(set(self.items)) == 1:
            return f"{len(self.items)}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{self.items[0]}"
        return str(sum(self.items))


@dataclass(frozen=True)
class MethodSummary:
    """One method over the languages in scope.

    Attributes:
        method: Its name in the rows.
        metrics: Mean change of each safety metric that was measured.
        capability: Mean change over all ability tasks and languages, or None if none was measured.
        lower: Languages whose unsafe rate is significantly lower after the edit.
        higher: Languages whose unsafe rate is significantly higher.
        unmeasured: Languages in scope without an unsafe rate.
        elsewhere: Rows of the languages outside the scope.
        broken: Language in scope -> share of answers that are broken after the edit.
    """

    method: str
    metrics: Mapping[str, Change]
    capability: Change | None
    lower: tuple[str, ...]
    higher: tuple[str, ...]
    unmeasured: tuple[str, ...]
    elsewhere: tuple[Row, ...] = ()
    broken: Mapping[str, float] = field(default_factory=dict)

    @property
    def unsafe(self) -> Change | None:
        """Mean change of the unsafe rate."""
        return self.metrics.get("unsafe")

    @property
    def repaired(self) -> Change | None:
        """Mean change of proper answers to harmful requests: safe ones where judged, else refusals."""
        return self.metrics.get("safe") or self.metrics.get("refused")


@dataclass(frozen=True)
class Scope:
    """The languages over which means are taken, and what they are called together."""

    languages: tuple[str, ...]
    kind: str

    @classmethod
    def of(cls, data: ReportData) -> Scope:
        """The low-resource languages that were evaluated; without any, all but the pivot; else all."""
        languages = in_order((row.language for row in data.rows or data.audits), data.tiers)
        for kind, chosen in (
            (tier_name("low"), [code for code in languages if data.tiers.get(code) == "low"]),
            ("non-pivot", [code for code in languages if data.tiers.get(code) != "pivot"]),
        ):
            if chosen:
                return cls(tuple(chosen), kind)
        return cls(tuple(languages), "evaluated")


def methods_of(rows: Iterable[Row]) -> list[str]:
    """Methods in the order of first appearance, baselines, published settings and controls last."""
    rank = {"method": 0, "baseline": 1, "published": 2, "transfer": 3, "control": 4}
    return sorted(dict.fromkeys(row.method for row in rows), key=lambda method: rank[method_kind(method)])


def headline_method(data: ReportData) -> str | None:
    """The method that the verdict is about, or None where there are no rows of it."""
    methods = methods_of(data.rows)
    if data.headline is not None:
        return data.headline if data.headline in methods else None
    return next((method for method in methods if method_kind(method) in ("method", "baseline")), None)


def main_and_other_methods(data: ReportData) -> tuple[list[str], list[str]]:
    """The methods that the report is about, the headline first, and those that stand beside them for comparison."""
    headline = headline_method(data)
    ordered = sorted(methods_of(data.rows), key=lambda method: method != headline)
    main = [method for method in ordered if method == headline or method_kind(method) == "method"]
    return main, [method for method in ordered if method not in main]


def summarise(rows: Sequence[Row], method: str, scope: Scope) -> MethodSummary:
    """Means of one method over the languages in scope; rows without a rate (n = 0) are left out and named."""
    all_of_it = [row for row in rows if row.method == method]
    mine = [row for row in all_of_it if row.language in scope.languages]
    unsafe = [row for row in mine if row.metric == "unsafe"]
    measured = {row.language for row in unsafe if row.difference is not None}
    means = {metric: mean_change([row for row in mine if row.metric == metric]) for metric in SAFETY_METRICS}
    return MethodSummary(
        method=method,
        metrics={metric: change for metric, change in means.items() if change is not None},
        capability=mean_change([row for row in mine if row.metric.startswith(CAPABILITY)]),
        lower=tuple(row.language for row in unsafe if significance(row) < 0),
        higher=tuple(row.language for row in unsafe if significance(row) > 0),
        unmeasured=tuple(code for code in scope.languages if code not in measured),
        elsewhere=tuple(row for row in all_of_it if row.language not in scope.languages),
        broken=broken_shares((row.language, row.metric, row.after) for row in mine),
    )


def significance(row: Row) -> int:
    """−1 or 1 where the rate fell or rose significantly, else 0."""
    if row.p_adjusted is None or row.p_adjusted >= SIGNIFICANT or not row.difference:
        return 0
    return 1 if row.difference > 0 else -1


def mean_change(rows: Sequence[Row]) -> Change | None:
    """The unweighted mean of rows that have both rates, or None without any."""
    pairs = [(row, row.before, row.after) for row in rows if row.before is not None and row.after is not None]
    if not pairs:
        return None
    return Change(
        before=sum(before for _, before, _ in pairs) / len(pairs),
        after=sum(after for _, _, after in pairs) / len(pairs),
        before_interval=mean_of_intervals([row.before_interval for row, _, _ in pairs]),
        after_interval=mean_of_intervals([row.after_interval for row, _, _ in pairs]),
        languages=tuple(dict.fromkeys(row.language for row, _, _ in pairs)),
        items=tuple(row.n for row, _, _ in pairs),
    )


def mean_of_intervals(intervals: Sequence[Interval | None]) -> Interval | None:
    """The mean interval (see `polysafe.stats.mean_interval`), or None where one is missing."""
    known = [interval for interval in intervals if interval is not None]
    return mean_interval(known) if len(known) == len(intervals) else None
