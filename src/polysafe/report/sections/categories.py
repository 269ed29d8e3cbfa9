"""Unsafe answers by category of the request and language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.findings.summary import headline_method
from polysafe.report.charts.heatmap import HeatCell, HeatMap
from polysafe.report.tables import Cell, Group, Table, row_notes
from polysafe.stats.rows import RateRow, Row
from polysafe.text import readable as text
from polysafe.text.readable import LEVEL, interval, percent, percent_number, points

_NO_CATEGORY = {"none": "(no category)"}
_Found = TypeVar("_Found", Row, RateRow)


def category_maps(data: ReportData) -> list[HeatMap]:
    """After the headline edit and what it changed; without an edit, the rates of the audited model."""
    method = headline_method(data)
    if method is not None:
        return _edit_maps(data, method)
    return _audit_maps(data, data.audits[0].model) if data.audits and not data.rows else []


def _edit_maps(data: ReportData, method: str) -> list[HeatMap]:
    mine = {name: [r for r in rows if r.method == method] for name, rows in data.categories.items()}
    grid = _grid(mine, lambda row: row.after)
    if not grid:
        return []
    codes = _codes(data, grid)
    name, columns = names.method_name(method), _columns(data, codes)
    return [
        HeatMap(
            heading=f"Unsafe after the edit: {name}",
            caption="Unsafe answers in percent; the darker, the more. Under each number its items.",
            corner="Category",
            columns=columns,
            rows=tuple((_name(c), tuple(_after_cell(rows.get(code)) for code in codes)) for c, rows in grid.items()),
            table=_edit_table(data, codes, grid),
        ),
        HeatMap(
            heading=f"What the edit changed: {name}",
            caption="Change of unsafe answers in points: blue and a minus sign fell, orange and a plus sign rose.",
            corner="Category",
            columns=columns,
            rows=tuple((_name(c), tuple(_change_cell(rows.get(code)) for code in codes)) for c, rows in grid.items()),
        ),
    ]


def _audit_maps(data: ReportData, model: str) -> list[HeatMap]:
    mine = {name: [r for r in rows if r.model == model] for name, rows in data.audit_categories.items()}
    grid = _grid(mine, lambda row: row.rate)
    if not grid:
        return []
    codes = _codes(data, grid)
    return [
        HeatMap(
            heading=f"Unsafe answers: {model}",
            caption="Unsafe answers in percent; the darker, the more. Under each number its items.",
            corner="Category",
            columns=_columns(data, codes),
            rows=tuple((_name(c), tuple(_rate_cell(rows.get(code)) for code in codes)) for c, rows in grid.items()),
            table=_audit_table(data, codes, grid),
        )
    ]


def _grid(
    categories: Mapping[str, Sequence[_Found]], rate: Callable[[_Found], float | None]
) -> dict[str, dict[str, _Found]]:
    """Category -> language -> its row; the categories with the highest mean rate first."""
    grid = {name: {row.language: row for row in rows if row.metric == "unsafe"} for name, rows in categories.items()}

    def mean(name: str) -> float:
        known = [found for row in grid[name].values() if (found := rate(row)) is not None]
        return sum(known) / len(known) if known else -1.0

    return {name: grid[name] for name in sorted(grid, key=mean, reverse=True) if grid[name]}


def _codes(data: ReportData, grid: Mapping[str, Iterable[str]]) -> list[str]:
    return names.in_order((code for languages in grid.values() for code in languages), data.tiers)


def _columns(data: ReportData, codes: Iterable[str]) -> tuple[str, ...]:
    return tuple(names.language_name(code, data.languages) for code in codes)


def _name(category: str) -> str:
    return _NO_CATEGORY.get(category, category)


def _after_cell(row: Row | None) -> HeatCell | None:
    if row is None or row.after is None:
        return None
    return HeatCell(percent_number(row.after), f"n {row.n}", row.after)


def _change_cell(row: Row | None) -> HeatCell | None:
    if row is None or row.difference is None:
        return None
    tone = "good" if row.difference < 0 else "bad"
    return HeatCell(points(row.difference), f"n {row.n}", abs(row.difference), tone)


def _rate_cell(row: RateRow | None) -> HeatCell | None:
    if row is None or row.rate is None:
        return None
    return HeatCell(percent_number(row.rate), f"n {row.n}", row.rate)


def _edit_table(data: ReportData, codes: Sequence[str], grid: Mapping[str, Mapping[str, Row]]) -> Table:
    def line(row: Row) -> tuple[Cell, ...]:
        return (
            _language(data, row),
            Cell(text.change(row.before, row.after), row_notes(row)),
            Cell(points(row.difference)),
        )

    return _table(codes, grid, "Change, points", line)


def _audit_table(data: ReportData, codes: Sequence[str], grid: Mapping[str, Mapping[str, RateRow]]) -> Table:
    def line(row: RateRow) -> tuple[Cell, ...]:
        return _language(data, row), Cell(percent(row.rate), (f"{LEVEL} {interval(row.interval)}",)), Cell(str(row.n))

    return _table(codes, grid, "n", line)


def _table(
    codes: Sequence[str],
    grid: Mapping[str, Mapping[str, _Found]],
    last: str,
    line: Callable[[_Found], tuple[Cell, ...]],
) -> Table:
    """A group for every category, with a line for every language; `last` is the heading of the last column."""
    groups = (
        Group(_name(category), "", tuple(line(rows[code]) for code in codes if code in rows))
        for category, rows in grid.items()
    )
    return Table("Unsafe answers by category", ("Language", "Unsafe", last), tuple(groups))


def _language(data: ReportData, row: Row | RateRow) -> Cell:
    return Cell(names.language_name(row.language, data.languages))
