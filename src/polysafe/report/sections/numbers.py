"""What was measured in numbers by language, such as refusal log-odds: of single models, and what edits changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polysafe.evaluate.numbers import BITS
from polysafe.evaluate.odds import HARMFUL, HARMLESS
from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.report.charts.axis import axis_of
from polysafe.report.charts.figure import Figure
from polysafe.report.charts.figures import Dumbbell, dumbbell_chart
from polysafe.report.tables import Cell, Group, Table
from polysafe.stats.intervals import Interval
from polysafe.stats.means import MeanChange, MeanGap, MeanRow
from polysafe.text.readable import ARROW, LEVEL, NOTHING, number, p_value, signed


@dataclass(frozen=True)
class Quantity:
    """What a metric is, in words.

    Attributes:
        id: Section of the page.
        title: Title of the section.
        what: What the numbers are and what they do not say.
        of: What they were read of; empty where a section has one metric only.
        rise_is_good: Whether higher is better.
        zero: Whether zero is marked, and numbers carry a sign.
    """

    id: str
    title: str
    what: str
    of: str
    rise_is_good: bool
    zero: bool

    def told(self, value: float | None) -> str:
        """A value in words."""
        return signed(value) if self.zero else number(value)

    @property
    def heading(self) -> str:
        """Title of a figure."""
        return f"{self.title}: {self.of}" if self.of else self.title


_ODDS = (
    "Log-probability of the language's refusal openings minus that of its compliance openings, per token. The zero has "
    "no meaning of its own, and different sets do not compare: look at the same prompts before and after, or in two "
    "languages. It says nothing of what an answer goes on to say."
)
_BITS = (
    "Bits that a character of known texts costs the model, on average: perplexity, told so that tokenizers do not "
    "matter. Lower is better. Languages do not compare; before and after do."
)
QUANTITIES: Mapping[str, Quantity] = {
    HARMFUL: Quantity("odds", "Refusal log-odds", _ODDS, "harmful requests", rise_is_good=True, zero=True),
    HARMLESS: Quantity("odds", "Refusal log-odds", _ODDS, "harmless requests", rise_is_good=False, zero=True),
    BITS: Quantity("bits", "Bits per character", _BITS, "", rise_is_good=False, zero=False),
}
"""Metric -> what it is."""


def sections() -> dict[str, dict[str, Quantity]]:
    """Section of the page -> its metrics, in their order."""
    found: dict[str, dict[str, Quantity]] = {}
    for metric, quantity in QUANTITIES.items():
        found.setdefault(quantity.id, {})[metric] = quantity
    return found


@dataclass(frozen=True)
class Section:
    """The figures of one kind of number."""

    id: str
    title: str
    figures: tuple[Figure, ...]


def number_sections(data: ReportData) -> list[Section]:
    """The figures of everything that was measured in numbers, by what it is."""
    found = [
        Section(id_, next(iter(metrics.values())).title, tuple(number_figures(data, id_)))
        for id_, metrics in sections().items()
    ]
    return [section for section in found if section.figures]


def number_figures(data: ReportData, id_: str) -> list[Figure]:
    """The numbers of audited models, or those before and after every edit; one figure per metric and method."""
    metrics = sections()[id_]
    methods = dict.fromkeys(change.method for change in data.number_changes)
    found = [_change_figure(data, method, metric) for method in methods for metric in metrics]
    return [figure for figure in found or [_model_figure(data, metric) for metric in metrics] if figure is not None]


def _model_figure(data: ReportData, metric: str) -> Figure | None:
    quantity = QUANTITIES[metric]
    rows = {row.language: row for row in data.numbers if row.metric == metric and row.mean is not None}
    gaps = {gap.language: gap for gap in data.number_gaps if gap.metric == metric}
    ordered = [rows[code] for code in names.in_order(rows, data.tiers)]
    lines = [
        Dumbbell(
            _language(data, row.language),
            f"{quantity.told(row.mean)}, n {row.n}",
            None,
            row.mean or 0.0,
            None,
            _span(row),
            muted=True,
        )
        for row in ordered
    ]
    return _figure(quantity.heading, quantity, lines, _model_table(data, quantity, ordered, gaps))


def _change_figure(data: ReportData, method: str, metric: str) -> Figure | None:
    quantity = QUANTITIES[metric]
    found = {each.language: each for each in data.number_changes if (each.method, each.metric) == (method, metric)}
    ordered = [found[code] for code in names.in_order(found, data.tiers) if found[code].difference is not None]
    lines = [
        Dumbbell(
            _language(data, each.language),
            f"{quantity.told(each.before)} {ARROW} {quantity.told(each.after)}, n {each.n}",
            each.before,
            each.after or 0.0,
            None,
            None,
            rise_is_good=quantity.rise_is_good,
        )
        for each in ordered
    ]
    heading = f"{quantity.heading.replace(': ', ', ')}: {names.method_name(method)}"
    return _figure(heading, quantity, lines, _change_table(data, quantity, method, ordered))


def _figure(heading: str, quantity: Quantity, lines: Sequence[Dumbbell], table: Table) -> Figure | None:
    if not lines:
        return None
    ends = [value for line in lines for value in (line.before, line.after, *(line.after_interval or ()))]
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    axis = axis_of([value for value in ends if value is not None], plain=True)
    reference = 0.0 if quantity.zero else None
    chart = dumbbell_chart(lines, f"{heading}, by language. {told}.", reference=reference, axis=axis)
    return Figure(heading=heading, caption=f"{quantity.what} Means, {LEVEL} intervals.", chart=chart, table=table)


def _model_table(data: ReportData, quantity: Quantity, rows: Sequence[MeanRow], gaps: dict[str, MeanGap]) -> Table:
    lines = []
    for row in rows:
        gap = gaps.get(row.language)
        told = (
            (Cell(NOTHING), Cell(NOTHING))
            if gap is None
            else (Cell(signed(gap.difference), _ends(gap.low, gap.high)), Cell(p_value(gap.p_adjusted)))
        )
        ends = (
            () if row.low is None or row.high is None else (f"{quantity.told(row.low)} to {quantity.told(row.high)}",)
        )
        mean = Cell(quantity.told(row.mean), (*ends, f"n {row.n}"))
        lines.append((Cell(_language(data, row.language)), mean, *told))
    columns = ("Language", "Mean", "Gap to the pivot", "Adjusted p")
    return Table(f"{quantity.title}, means with {LEVEL} intervals", columns, (Group("", "", tuple(lines)),))


def _change_table(data: ReportData, quantity: Quantity, method: str, changes: Sequence[MeanChange]) -> Table:
    lines = tuple(
        (
            Cell(_language(data, each.language)),
            Cell(quantity.told(each.before)),
            Cell(quantity.told(each.after)),
            Cell(signed(each.difference), (*_ends(each.low, each.high), f"n {each.n}")),
            Cell(p_value(each.p_adjusted)),
        )
        for each in changes
    )
    columns = ("Language", "Before", "After", "Difference", "Adjusted p")
    title = f"{quantity.title} before and after {names.method_name(method)}, {LEVEL} intervals of the difference"
    return Table(title, columns, (Group("", "", lines),))


def _span(row: MeanRow) -> Interval | None:
    return None if row.low is None or row.high is None else Interval(row.low, row.high)


def _ends(low: float | None, high: float | None) -> tuple[str, ...]:
    return () if low is None or high is None else (f"{signed(low)} to {signed(high)}",)


def _language(data: ReportData, code: str) -> str:
    return names.language_name(code, data.languages)
