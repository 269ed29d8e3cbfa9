"""The tables of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.findings.summary import Change, MethodSummary, Scope, significance
from polysafe.findings.verdict import ABILITY_LOSS, classify
from polysafe.report.decisions import DecisionMap, describe
from polysafe.stats.rows import RateRow, Row
from polysafe.text import readable as text
from polysafe.text.readable import ARROW, LEVEL, NOTHING, gap_interval, interval, p_value, percent, points, score, sized


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, smaller lines under it, and whether it is good or bad news."""

    text: str
    notes: tuple[str, ...] = ()
    tone: str = ""


@dataclass(frozen=True)
class Group:
    """Rows of a table under a common heading; the first cell of a row is its heading."""

    heading: str
    badge: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table."""

    caption: str
    columns: tuple[str, ...]
    groups: tuple[Group, ...]


def language_label(code: str, data: ReportData) -> str:
    """A language's name, code and tier."""
    name = names.language_name(code, data.languages)
    tier = data.tiers.get(code)
    return name if tier is None else f"{name}, {names.tier_name(tier)}"


def audit_table(data: ReportData) -> Table:
    """All audited rates, one group per model."""
    metrics = _columns(row.metric for row in data.audits)
    cells = {(row.model, row.language, row.metric): row for row in data.audits}
    groups = []
    for model in dict.fromkeys(row.model for row in data.audits):
        codes = names.in_order((row.language for row in data.of_model(model)), data.tiers)
        rows = tuple(
            (Cell(language_label(code, data)), *(_audit_cell(cells.get((model, code, m))) for m in metrics))
            for code in codes
        )
        groups.append(Group(model, "", rows))
    columns = ("Language", *(names.metric_name(metric) for metric in metrics))
    return Table(f"Rates of the unedited models with {LEVEL} intervals", columns, tuple(groups))


def _audit_cell(row: RateRow | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    return Cell(percent(row.rate), tuple(filter(None, (interval(row.interval), f"n {row.n}"))))


def _columns(metrics: Iterable[str]) -> list[str]:
    present = dict.fromkeys(metrics)
    return [m for m in names.SAFETY_METRICS if m in present] + [m for m in present if m not in names.SAFETY_METRICS]


def comparison_table(summaries: Sequence[MethodSummary], scope: Scope) -> Table:
    """Methods by their means over the languages in scope."""
    metrics = _columns(metric for summary in summaries for metric in summary.metrics)
    if all(summary.metrics.get("safe") == summary.metrics.get("refused") for summary in summaries):
        metrics = [metric for metric in metrics if metric != "safe"]  # an exact judge: only a refusal is safe
    columns = ("Method", "Outcome", *map(names.metric_name, metrics), "Ability", "Signif. lower / higher")
    rows = []
    for summary in summaries:
        role = names.method_kind(summary.method)
        badge = (summary.method,) if role == "method" else (summary.method, role)
        kind, lower, higher = classify(summary), len(summary.lower), len(summary.higher)
        rows.append(
            (
                Cell(names.method_name(summary.method), badge),
                Cell(kind.label, tone=kind.tone),
                *(_mean_cell(summary.metrics.get(metric), scope) for metric in metrics),
                _ability_mean_cell(summary.capability, scope),
                Cell(f"{lower} / {higher}", (f"of {len(scope.languages)}",)),
            )
        )
    return Table(f"Means over {', '.join(scope.languages)}", columns, (Group("", "", tuple(rows)),))


def _mean_cell(change: Change | None, scope: Scope) -> Cell:
    if change is None:
        return Cell(NOTHING)
    ends = text.interval_change(change.before_interval, change.after_interval)
    notes = (ends, sized(change.size, change.worth), _only(change, scope))
    return Cell(text.change(change.before, change.after), tuple(filter(None, notes)))


def _ability_mean_cell(change: Change | None, scope: Scope) -> Cell:
    if change is None:
        return Cell(NOTHING)
    tone = "worse" if change.difference < -ABILITY_LOSS else ""
    shown = (text.change(change.before, change.after), gap_interval(change.interval), sized(change.size, change.worth))
    notes = (*shown, _only(change, scope))
    return Cell(f"{points(change.difference)} points", tuple(filter(None, notes)), tone)


def _only(change: Change, scope: Scope) -> str:
    return "" if set(change.languages) == set(scope.languages) else f"only {', '.join(change.languages)}"


def safety_table(
    data: ReportData, methods: Sequence[str], caption: str = "", metrics: Sequence[str] | None = None
) -> Table | None:
    """Safety metrics (all, or those named) per method and language, before and after; None where there are no rows."""
    rows = [row for row in data.rows if not row.metric.startswith(names.CAPABILITY)]
    rows = [row for row in rows if metrics is None or row.metric in metrics]
    return _table(data, methods, rows, _safety_cell, caption or f"Safety: before {ARROW} after")


def ability_table(data: ReportData, methods: Sequence[str]) -> Table | None:
    """Ability tasks per method and language; None where there are no such rows."""
    rows = [row for row in data.rows if row.metric.startswith(names.CAPABILITY)]
    return _table(data, methods, rows, _ability_cell, f"Ability: before {ARROW} after")


def _safety_cell(row: Row) -> Cell:
    """Better and worse are coloured only where they are significant."""
    good_when_up = row.metric in ("refused", "safe")
    direction = significance(row) * (1 if good_when_up else -1)
    tone = {1: "better", -1: "worse", 0: ""}[direction]
    return Cell(text.change(row.before, row.after), row_notes(row), tone)


def _ability_cell(row: Row) -> Cell:
    if row.difference is None:
        return Cell(NOTHING, (f"n {row.n}",))
    tone = {1: "better", -1: "worse", 0: ""}[significance(row)]
    return Cell(f"{points(row.difference)} points", (text.change(row.before, row.after), *row_notes(row)), tone)


def _table(
    data: ReportData,
    methods: Sequence[str],
    rows: Sequence[Row],
    make_cell: Callable[[Row], Cell],
    caption: str,
) -> Table | None:
    rows = [row for row in rows if row.method in methods]
    metrics = _columns(row.metric for row in rows)
    cells = {(row.method, row.language, row.metric): make_cell(row) for row in rows}
    groups = []
    for method in methods:
        codes = names.in_order((row.language for row in rows if row.method == method), data.tiers)
        lines = tuple(
            (Cell(language_label(code, data)), *(cells.get((method, code, m), Cell(NOTHING)) for m in metrics))
            for code in codes
        )
        if lines:
            groups.append(Group(names.method_name(method), _badge(method), lines))
    return Table(caption, ("Language", *map(names.metric_name, metrics)), tuple(groups)) if groups else None


def _badge(method: str) -> str:
    kind = names.method_kind(method)
    return "" if kind == "method" else kind


def row_notes(row: Row) -> tuple[str, ...]:
    """Intervals before and after, number of items and adjusted p-value, as far as they are known."""
    ends = text.interval_change(row.before_interval, row.after_interval)
    test = "" if row.p_adjusted is None else f", p {_relation(row.p_adjusted)}"
    return tuple(filter(None, (ends, f"{sized(row.n, row.n)}{test}")))


def _relation(p: float) -> str:
    shown = p_value(p)
    return shown if shown.startswith("<") else f"= {shown}"


def decision_table(data: ReportData, maps: Sequence[DecisionMap]) -> Table:
    """The decisions of one method with their scores, one group per language."""
    details = list(dict.fromkeys(key for map_ in maps for d in map_.decisions for key in d.detail))
    groups = []
    for map_ in maps:
        rows = tuple(
            (
                Cell(decision.block),
                Cell(describe(decision) + (" (borderline)" if decision.borderline else "")),
                Cell(score(decision.score)),
                *(Cell(_number(decision.detail.get(key))) for key in details),
            )
            for decision in map_.decisions
        )
        groups.append(Group(names.language_name(map_.language, data.languages), "", rows))
    return Table("Decision on every block", ("Block", "Taken from", "d", *details), tuple(groups))


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"
