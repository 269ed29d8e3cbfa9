"""Means over languages: what a method did, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from polysafe.findings.contests import ABILITY
from polysafe.findings.data import ReportData
from polysafe.findings.means import AFTER_GAP, BEFORE_GAP
from polysafe.findings.names import BROKEN, CAPABILITY, SAFETY_METRICS, in_order, method_kind, tier_name
from polysafe.findings.telling import broken_shares
from polysafe.stats.intervals import Interval, mean_interval
from polysafe.stats.language_means import MeanShift
from polysafe.stats.power import smallest_paired
from polysafe.stats.rows import Row
from polysafe.stats.versus import Versus

SIGNIFICANT = 0.05
"""Adjusted p-values below this are called significant."""


@dataclass(frozen=True)
class Change:
    """The unweighted mean of several rows, before and after.

    Attributes:
        before: Mean rate before, 0 … 1.
        after: Mean rate after.
        before_interval: Interval of `before`: by prompt (see `polysafe.stats.MeanShift`), or where single answers are
            not known the mean of the rows' intervals, which is never too narrow (see `polysafe.stats.mean_interval`).
        after_interval: The same after.
        languages: The languages in the mean; part of the name of the number.
        items: Number of items in each row.
        interval: Interval of the difference: paired, by prompt; or, where single answers are not known, as if before
            and after were independent.
        pairs: Number of independent pairs that say as much of the difference; None where there is no mean.
    """

    before: float
    after: float
    before_interval: Interval | None
    after_interval: Interval | None
    languages: tuple[str, ...]
    items: tuple[int, ...]
    interval: Interval | None = None
    pairs: float | None = None

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def turned(self) -> Change:
        """The change of the opposite metric."""
        return replace(
            self,
            before=1.0 - self.before,
            after=1.0 - self.after,
            before_interval=_turned(self.before_interval, 1.0),
            after_interval=_turned(self.after_interval, 1.0),
            interval=_turned(self.interval, 0.0),
        )

    @property
    def size(self) -> str:
        """The number of items, as 3 × 48 where all rows have the same."""
        if len(set(self.items)) == 1:
            return f"{len(self.items)}\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}{self.items[0]}"
        return str(sum(self.items))

    @property
    def worth(self) -> int:
        """How many independent pairs it is worth at least: those of one row, where single answers are not known."""
        return int(min(self.items) if self.pairs is None else self.pairs)

    @property
    def smallest(self) -> float | None:
        """The smallest difference that so many pairs can show (see `polysafe.stats.smallest_paired`)."""
        return smallest_paired(self.worth)

    def measured(self, shift: MeanShift) -> Change:
        """The same with the intervals of a mean that was computed from single answers."""
        return replace(
            self,
            before_interval=Interval(shift.before_low, shift.before_high),
            after_interval=Interval(shift.after_low, shift.after_high),
            interval=shift.interval,
            pairs=shift.size,
        )


def _turned(span: Interval | None, whole: float) -> Interval | None:
    return None if span is None else Interval(whole - span.high, whole - span.low)


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
        rates: Rows of the unsafe rate in scope.
        gap: Mean gap to the pivot, before and after; None where the pivot was not asked.
        against: Its unsafe answers against those of each of its controls, on the same prompts. A control that broke
            answers is none, nor is one that the paired test shows to pay more in ability or over-refusal.
    """

    method: str
    metrics: Mapping[str, Change]
    capability: Change | None
    lower: tuple[str, ...]
    higher: tuple[str, ...]
    unmeasured: tuple[str, ...]
    elsewhere: tuple[Row, ...] = ()
    broken: Mapping[str, float] = field(default_factory=dict)
    rates: tuple[Row, ...] = ()
    gap: Change | None = None
    against: tuple[Versus, ...] = ()

    @property
    def unsafe(self) -> Change | None:
        """Mean change of the unsafe rate."""
        return self.metrics.get("unsafe")

    @property
    def repaired(self) -> Change | None:
        """Mean change of proper answers to harmful requests: safe ones where judged, else refusals."""
        return self.metrics.get("safe") or self.metrics.get("refused")

    @property
    def proper(self) -> bool:
        """Whether at least half of the fall of the unsafe rate went to safe answers, not to broken ones.

        Without a safe or refused rate the broken ones are held against it; with neither, nothing is.
        """
        fall = 0.0 if self.unsafe is None else -self.unsafe.difference
        if self.repaired is not None:
            return self.repaired.difference >= fall / 2
        return sum(self.metrics[name].difference for name in BROKEN if name in self.metrics) <= fall / 2


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


def summarise(data: ReportData, method: str, scope: Scope) -> MethodSummary:
    """Means of one method over the languages in scope; rows without a rate (n = 0) are left out and named."""
    all_of_it = list(data.of_method(method))
    mine = [row for row in all_of_it if row.language in scope.languages]
    unsafe = [row for row in mine if row.metric == "unsafe"]
    measured = {row.language for row in unsafe if row.difference is not None}
    means = {
        metric: mean_change([row for row in mine if row.metric == metric], mean_of(data, method, metric))
        for metric in SAFETY_METRICS
    }
    return MethodSummary(
        method=method,
        metrics={metric: change for metric, change in means.items() if change is not None},
        capability=mean_change(
            [row for row in mine if row.metric.startswith(CAPABILITY)], mean_of(data, method, ABILITY)
        ),
        lower=tuple(row.language for row in unsafe if significance(row) < 0),
        higher=tuple(row.language for row in unsafe if significance(row) > 0),
        unmeasured=tuple(code for code in scope.languages if code not in measured),
        elsewhere=tuple(row for row in all_of_it if row.language not in scope.languages),
        broken=broken_shares((row.language, row.metric, row.after) for row in mine),
        rates=tuple(row for row in unsafe if row.difference is not None),
        gap=mean_gap(data, method, scope),
        against=tuple(_against_controls(data, method, scope)),
    )


def mean_of(data: ReportData, method: str, metric: str) -> list[MeanShift]:
    """The means of a method and metric that were computed from single answers, over whatever languages."""
    return [shift for shift in data.means if (shift.method, shift.metric) == (method, metric)]


def mean_gap(data: ReportData, method: str, scope: Scope, metric: str = "unsafe") -> Change | None:
    """The mean gap of the languages in scope, before and after; ends are differences in -1 … 1."""
    pairs = [
        (change, change.before.difference, change.after.difference)
        for change in data.gaps
        if change.method == method and change.after.metric == metric and change.after.language in scope.languages
    ]
    known = [(change, before, after) for change, before, after in pairs if before is not None and after is not None]
    if not known:
        return None
    languages = tuple(change.after.language for change, _, _ in known)
    spans = [mean_of_intervals([change.before.interval for change, _, _ in known]),
             mean_of_intervals([change.after.interval for change, _, _ in known])]  # fmt: skip
    for place, name in enumerate((BEFORE_GAP, AFTER_GAP)):
        for shift in mean_of(data, method, name + metric):
            if set(shift.languages) == set(languages):
                spans[place] = shift.interval
    return Change(
        before=sum(before for _, before, _ in known) / len(known),
        after=sum(after for _, _, after in known) / len(known),
        before_interval=spans[0],
        after_interval=spans[1],
        languages=languages,
        items=tuple(change.after.n for change, _, _ in known),
    )


def _against_controls(data: ReportData, method: str, scope: Scope) -> Iterator[Versus]:
    mine = [
        pair
        for contest in data.contests
        for pair in contest.pairs
        if pair.method == method and method_kind(pair.other) == "control"
    ]
    better = {"over_refusal": -1, ABILITY: 1}
    dearer = {pair.other for pair in mine if direction(pair.difference, pair.p_adjusted) == better.get(pair.metric)}
    for pair in mine:
        if pair.metric == "unsafe" and pair.other not in dearer and summarise(data, pair.other, scope).proper:
            yield pair


def significance(row: Row) -> int:
    """−1 or 1 where the rate fell or rose significantly, else 0."""
    return direction(row.difference, row.p_adjusted)


def direction(difference: float | None, p_adjusted: float | None) -> int:
    """−1 or 1 where a difference is significant, else 0."""
    if p_adjusted is None or p_adjusted >= SIGNIFICANT or not difference:
        return 0
    return 1 if difference > 0 else -1


def mean_change(rows: Sequence[Row], shifts: Iterable[MeanShift] = ()) -> Change | None:
    """The unweighted mean of rows that have both rates, or None without any.

    Args:
        rows: The rows.
        shifts: Means that were computed from single answers; the one over the same languages gives the intervals.
    """
    pairs = [(row, row.before, row.after) for row in rows if row.before is not None and row.after is not None]
    if not pairs:
        return None
    change = Change(
        before=sum(before for _, before, _ in pairs) / len(pairs),
        after=sum(after for _, _, after in pairs) / len(pairs),
        before_interval=mean_of_intervals([row.before_interval for row, _, _ in pairs]),
        after_interval=mean_of_intervals([row.after_interval for row, _, _ in pairs]),
        languages=tuple(dict.fromkeys(row.language for row, _, _ in pairs)),
        items=tuple(row.n for row, _, _ in pairs),
    )
    change = replace(change, interval=_unpaired(change))
    fitting = [shift for shift in shifts if set(shift.languages) == set(change.languages)]
    return change.measured(fitting[0]) if fitting else change


def _unpaired(change: Change) -> Interval | None:
    """An interval of after minus before from the intervals of both, as if they were independent.

    The squares of the distances to the near ends add up (Newcombe 1998, method 10). The items are the same before and
    after, so their errors go together and the true interval is narrower.
    """
    first, second = change.before_interval, change.after_interval
    if first is None or second is None:
        return None
    down = math.hypot(change.after - second.low, first.high - change.before)
    up = math.hypot(second.high - change.after, change.before - first.low)
    return Interval(change.difference - down, change.difference + up)


def mean_of_intervals(intervals: Sequence[Interval | None]) -> Interval | None:
    """The mean interval (see `polysafe.stats.mean_interval`), or None where one is missing."""
    known = [interval for interval in intervals if interval is not None]
    return mean_interval(known) if len(known) == len(intervals) else None
