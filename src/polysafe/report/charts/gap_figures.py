"""The gaps to the pivot as charts and tables: before and after an edit, or of one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from polysafe.findings import names
from polysafe.findings.data import GapChange, ReportData
from polysafe.findings.gaps import gap_changes, model_gaps, pivot_name
from polysafe.findings.summary import methods_of
from polysafe.report.charts.axis import axis_of
from polysafe.report.charts.figure import Figure
from polysafe.report.charts.figures import Dumbbell, dumbbell_chart
from polysafe.report.tables import Cell, Group, Table
from polysafe.stats.gaps import POOLED, Gap
from polysafe.text.readable import ARROW, LEVEL, NOTHING, gap_interval, least_points, p_value, percent, points


def gap_change_figure(data: ReportData, method: str) -> Figure | None:
    """The gaps of one method before and after."""
    changes = gap_changes(data, method)
    lines = [line for change in changes if (line := _change_line(data, change)) is not None]
    if not lines:
        return None
    pivot = pivot_name(data, changes[0].after.pivot)
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=f"Gap to {pivot}: {names.method_name(method)}",
        caption=f"Unsafe answers in a language minus those in {pivot} to the same prompts, in points, before (hollow) "
        f"and after (filled) the edit, {LEVEL} intervals. Dashed: no gap.",
        chart=_chart(lines, f"Gap in unsafe answers to {pivot}, in points, before and after. {told}."),
        table=gap_change_table(data, [method]),
    )


def _change_line(data: ReportData, change: GapChange) -> Dumbbell | None:
    before, after = change.before, change.after
    if after.difference is None or after.language == POOLED:
        return None
    start = None if before.difference is None else before.difference
    note = f"{points(start)} {ARROW} {points(after.difference)}, n {after.n}"
    label = names.language_name(after.language, data.languages)
    return Dumbbell(label, note, start, after.difference, before.interval, after.interval)


def model_gap_figure(data: ReportData, model: str) -> Figure | None:
    """The gaps of one unedited model."""
    gaps = model_gaps(data, model)
    lines = [
        Dumbbell(
            names.language_name(gap.language, data.languages),
            f"{points(gap.difference)} points, n {gap.n}",
            None,
            gap.difference,
            None,
            gap.interval,
        )
        for gap in gaps
        if gap.difference is not None and gap.language != POOLED
    ]
    if not lines:
        return None
    pivot = pivot_name(data, gaps[0].pivot)
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=f"Gap to {pivot}: {model}",
        caption=f"Unsafe answers in a language minus those in {pivot} to the same prompts, in points, {LEVEL} "
        "intervals. Dashed: no gap.",
        chart=_chart(lines, f"Gap in unsafe answers to {pivot}, in points. {told}."),
        table=model_gap_table(data, model),
    )


def _chart(lines: Sequence[Dumbbell], alternative: str) -> Markup:
    ends = [line.after for line in lines] + [line.before for line in lines if line.before is not None]
    for span in _intervals(lines):
        ends += span
    return dumbbell_chart(lines, alternative, reference=0.0, axis=axis_of(ends, points=True))


def _intervals(lines: Iterable[Dumbbell]) -> list[tuple[float, float]]:
    spans = [span for line in lines for span in (line.before_interval, line.after_interval)]
    return [span for span in spans if span is not None]


def gap_change_table(data: ReportData, methods: Sequence[str] | None = None) -> Table:
    """All gaps of the methods, before and after, one group per method and metric."""
    columns = ("Language", "Gap before", "Gap after", "Rates before", "Rates after", "p before", "p after", "n")
    groups = []
    for method in methods_of(data.rows) if methods is None else methods:
        for metric in dict.fromkeys(change.after.metric for change in data.gaps if change.method == method):
            rows = tuple(_change_row(data, change) for change in gap_changes(data, method, metric))
            groups.append(Group(f"{names.method_name(method)}: {names.metric_name(metric)}", "", rows))
    return Table("Gap to the pivot in points, rates in the language and in the pivot", columns, tuple(groups))


def _change_row(data: ReportData, change: GapChange) -> tuple[Cell, ...]:
    before, after = change.before, change.after
    return (
        Cell(_language(data, after.language)),
        _gap_cell(before),
        _gap_cell(after),
        Cell(_rates(before)),
        Cell(_rates(after)),
        Cell(_p(before)),
        Cell(_p(after)),
        Cell(str(after.n), (_detects(after),)),
    )


def model_gap_table(data: ReportData, model: str) -> Table:
    """All gaps of one unedited model, one group per metric."""
    columns = ("Language", "Gap", "Rates", "p", "n", "Not paired")
    groups = []
    for metric in dict.fromkeys(gap.metric for gap in data.audit_gaps if gap.model == model):
        rows = tuple(
            (
                Cell(_language(data, gap.language)),
                _gap_cell(gap),
                Cell(_rates(gap)),
                Cell(_p(gap)),
                Cell(str(gap.n), (_detects(gap),)),
                Cell(str(gap.only_language + gap.only_pivot)),
            )
            for gap in model_gaps(data, model, metric)
        )
        groups.append(Group(names.metric_name(metric), "", rows))
    return Table(f"{model}: gap to the pivot in points, rates in the language and in the pivot", columns, tuple(groups))


def _gap_cell(gap: Gap) -> Cell:
    return Cell(points(gap.difference), tuple(filter(None, (gap_interval(gap.interval),))))


def _detects(gap: Gap) -> str:
    """The smallest gap that the prompts show; those of all languages together are worth at least the clusters."""
    return f"detects {least_points(gap.clusters)}"


def _rates(gap: Gap) -> str:
    if gap.rate is None or gap.pivot_rate is None:
        return NOTHING
    return f"{percent(gap.rate)} against {percent(gap.pivot_rate)}"


def _p(gap: Gap) -> str:
    return p_value(gap.p_value if gap.p_adjusted is None else gap.p_adjusted)


def _language(data: ReportData, code: str) -> str:
    return "All languages together" if code == POOLED else names.language_name(code, data.languages)
