"""Refusal log-odds by language: how inclined a model is to refuse, and what an edit changed in that."""

from __future__ import annotations

from collections.abc import Sequence

from polysafe.evaluate.odds import HARMFUL, HARMLESS
from polysafe.report import names
from polysafe.report.axis import axis_of
from polysafe.report.data import ReportData
from polysafe.report.figure import Figure
from polysafe.report.figures import Dumbbell, dumbbell_chart
from polysafe.report.tables import Cell, Group, Table
from polysafe.report.text import ARROW, LEVEL, NOTHING, p_value, signed
from polysafe.stats.intervals import Interval
from polysafe.stats.means import MeanChange, MeanGap, MeanRow

WHAT = (
    "Log-probability of the language's refusal openings minus that of its compliance openings, per token. The zero has "
    "no meaning of its own, and different sets do not compare: look at the same prompts before and after, or in two "
    "languages. It says nothing of what an answer goes on to say."
)
_NAMES = {HARMFUL: "Harmful requests", HARMLESS: "Harmless requests"}


def odds_name(metric: str) -> str:
    """What log-odds were read of, in words."""
    return _NAMES.get(metric, metric).lower()


def odds_figures(data: ReportData) -> list[Figure]:
    """The log-odds of audited models, and those before and after every edit; one figure per metric."""
    found = [_model_figure(data, metric) for metric in _NAMES] if not data.odds_changes else []
    methods = dict.fromkeys(change.method for change in data.odds_changes)
    found += [_change_figure(data, method, metric) for method in methods for metric in _NAMES]
    return [figure for figure in found if figure is not None]


def _model_figure(data: ReportData, metric: str) -> Figure | None:
    rows = {row.language: row for row in data.odds if row.metric == metric and row.mean is not None}
    gaps = {gap.language: gap for gap in data.odds_gaps if gap.metric == metric}
    ordered = [rows[code] for code in names.in_order(rows, data.tiers)]
    lines = [
        Dumbbell(_language(data, row.language), _note(row), None, row.mean or 0.0, None, _span(row), muted=True)
        for row in ordered
    ]
    return _figure(f"Refusal log-odds: {_NAMES[metric].lower()}", lines, _model_table(data, ordered, gaps))


def _change_figure(data: ReportData, method: str, metric: str) -> Figure | None:
    found = {each.language: each for each in data.odds_changes if (each.method, each.metric) == (method, metric)}
    ordered = [found[code] for code in names.in_order(found, data.tiers) if found[code].difference is not None]
    lines = [
        Dumbbell(
            _language(data, each.language),
            f"{signed(each.before)} {ARROW} {signed(each.after)}, n {each.n}",
            each.before,
            each.after or 0.0,
            None,
            None,
            rise_is_good=metric == HARMFUL,
        )
        for each in ordered
    ]
    heading = f"Refusal log-odds, {_NAMES[metric].lower()}: {names.method_name(method)}"
    return _figure(heading, lines, _change_table(data, method, ordered))


def _figure(heading: str, lines: Sequence[Dumbbell], table: Table) -> Figure | None:
    if not lines:
        return None
    ends = [value for line in lines for value in (line.before, line.after, *(line.after_interval or ()))]
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    axis = axis_of([value for value in ends if value is not None], plain=True)
    chart = dumbbell_chart(lines, f"{heading}, by language. {told}.", reference=0.0, axis=axis)
    return Figure(heading=heading, caption=f"{WHAT} Means, {LEVEL} intervals.", chart=chart, table=table)


def _model_table(data: ReportData, rows: Sequence[MeanRow], gaps: dict[str, MeanGap]) -> Table:
    lines = []
    for row in rows:
        gap = gaps.get(row.language)
        told = (
            (Cell(NOTHING), Cell(NOTHING))
            if gap is None
            else (Cell(signed(gap.difference), _ends(gap.low, gap.high)), Cell(p_value(gap.p_adjusted)))
        )
        mean = Cell(signed(row.mean), (*_ends(row.low, row.high), f"n {row.n}"))
        lines.append((Cell(_language(data, row.language)), mean, *told))
    columns = ("Language", "Log-odds", "Gap to the pivot", "Adjusted p")
    return Table(f"Refusal log-odds, means with {LEVEL} intervals", columns, (Group("", "", tuple(lines)),))


def _change_table(data: ReportData, method: str, changes: Sequence[MeanChange]) -> Table:
    lines = tuple(
        (
            Cell(_language(data, each.language)),
            Cell(signed(each.before)),
            Cell(signed(each.after)),
            Cell(signed(each.difference), (*_ends(each.low, each.high), f"n {each.n}")),
            Cell(p_value(each.p_adjusted)),
        )
        for each in changes
    )
    columns = ("Language", "Before", "After", "Difference", "Adjusted p")
    title = f"Refusal log-odds before and after {names.method_name(method)}, {LEVEL} intervals of the difference"
    return Table(title, columns, (Group("", "", lines),))


def _note(row: MeanRow) -> str:
    return f"{signed(row.mean)}, n {row.n}"


def _span(row: MeanRow) -> Interval | None:
    return None if row.low is None or row.high is None else Interval(row.low, row.high)


def _ends(low: float | None, high: float | None) -> tuple[str, ...]:
    return () if low is None or high is None else (f"{signed(low)} to {signed(high)}",)


def _language(data: ReportData, code: str) -> str:
    return names.language_name(code, data.languages)
