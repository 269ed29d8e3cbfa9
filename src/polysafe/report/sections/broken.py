"""Answers that are neither safe nor unsafe: broken, in the wrong language, unparsed, or cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.findings.summary import headline_method
from polysafe.report.charts.heatmap import HeatCell, HeatMap
from polysafe.stats.rows import RateRow, Row
from polysafe.text import readable as text
from polysafe.text.readable import interval, percent_number

_Found = TypeVar("_Found", Row, RateRow)
_METRICS = (*names.BROKEN, *(f"harmless_{metric}" for metric in names.BROKEN))


def broken_maps(data: ReportData) -> list[HeatMap]:
    """Answers of the headline edit, or of the audited model, that are neither safe nor unsafe, and those cut off."""
    method = headline_method(data)
    if method is not None:
        found = [_edit_map(data, method)]
    else:
        found = [_audit_map(data, data.audits[0].model)] if data.audits and not data.rows else []
    return [shown for shown in (*found, _truncation_map(data)) if shown is not None]


def _edit_map(data: ReportData, method: str) -> HeatMap | None:
    heading = f"Before {text.ARROW} after: {names.method_name(method)}"
    return _map(data, data.of_method(method), heading, "the more after the edit", _change_cell)


def _change_cell(row: Row | None) -> HeatCell | None:
    if row is None or row.before is None or row.after is None:
        return None
    rates = f"{percent_number(row.before)} {text.ARROW} {percent_number(row.after)}"
    note = ", ".join(filter(None, (text.interval_change(row.before_interval, row.after_interval), f"n {row.n}")))
    return HeatCell(rates, note, row.after)


def _audit_map(data: ReportData, model: str) -> HeatMap | None:
    return _map(data, data.of_model(model), model, "the more", _rate_cell)


def _map(
    data: ReportData,
    found: Sequence[_Found],
    heading: str,
    darker: str,
    cell: Callable[[_Found | None], HeatCell | None],
) -> HeatMap | None:
    """A row for every language, a column for every way in which an answer can be broken."""
    rows = {(row.language, row.metric): row for row in found if row.metric in _METRICS}
    if not rows:
        return None
    metrics = [metric for metric in _METRICS if any(metric == each for _, each in rows)]
    codes = names.in_order((language for language, _ in rows), data.tiers)
    return HeatMap(
        heading=heading,
        caption=f"Share of answers in percent, with their items; the darker, {darker}. An answer counts once: it is "
        "safe, unsafe, or one of these.",
        corner="Language",
        columns=tuple(names.metric_name(metric) for metric in metrics),
        rows=tuple((_language(data, c), tuple(cell(rows.get((c, m))) for m in metrics)) for c in codes),
    )


def _rate_cell(row: RateRow | None) -> HeatCell | None:
    if row is None or row.rate is None:
        return None
    note = ", ".join(filter(None, (interval(row.interval), f"n {row.n}")))
    return HeatCell(percent_number(row.rate), note, row.rate)


def _truncation_map(data: ReportData) -> HeatMap | None:
    if not data.truncation:
        return None
    rows = {(row.language, row.model): row for row in data.truncation}
    models = tuple(dict.fromkeys(row.model for row in data.truncation))
    codes = names.in_order((row.language for row in data.truncation), data.tiers)
    return HeatMap(
        heading="Cut off by the token budget",
        caption="Share of answers in percent that the budget ended, by model: the same budget buys less text in some "
        "scripts, and an answer that is cut off may look safer, or more broken, than it is.",
        corner="Language",
        columns=models,
        rows=tuple((_language(data, c), tuple(_rate_cell(rows.get((c, m))) for m in models)) for c in codes),
    )


def _language(data: ReportData, code: str) -> str:
    return names.language_name(code, data.languages)
