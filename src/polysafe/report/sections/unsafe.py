"""Unsafe answers by language: what a model does with harmful requests, and what every method made of it."""

from __future__ import annotations

from collections.abc import Sequence

from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.report.charts.figure import Figure
from polysafe.report.charts.figures import Bar, Dumbbell, bar_chart, dumbbell_chart
from polysafe.report.tables import audit_table, safety_table
from polysafe.stats.rows import RateRow, Row
from polysafe.text import readable as text
from polysafe.text.readable import ARROW, LEVEL, percent


def answers_figure(data: ReportData) -> Figure | None:
    """What the first audited model does with harmful requests, per language."""
    if not data.audits:
        return None
    model = data.audits[0].model
    rows = {(row.language, row.metric): row for row in data.of_model(model)}
    codes = names.in_order((row.language for row in data.of_model(model)), data.tiers)
    bars, described = [], []
    for code in codes:
        unsafe = rows.get((code, "unsafe"))
        if unsafe is None or unsafe.rate is None:
            continue
        refused = rows.get((code, "refused")) or rows.get((code, "safe"))
        note = _audit_note(unsafe, refused)
        rate = None if refused is None else refused.rate
        bars.append(Bar(names.language_name(code, data.languages), note, unsafe.rate, unsafe.interval, rate))
        described.append(f"{code}: {note}")
    if not bars:
        return None
    return Figure(
        heading=f"Answers to harmful requests: {model}",
        caption=f"Unsafe with its {LEVEL} interval, refused, and the rest: neither.",
        chart=bar_chart(bars, f"Answers of {model} to harmful requests. {'; '.join(described)}."),
        table=audit_table(data),
    )


def _audit_note(unsafe: RateRow, refused: RateRow | None) -> str:
    parts = [f"unsafe {percent(unsafe.rate)}"]
    if refused is not None:
        parts.append(f"{refused.metric} {percent(refused.rate)}")
    return ", ".join((*parts, f"n {unsafe.n}"))


def repair_figures(data: ReportData, methods: Sequence[str]) -> list[Figure]:
    """For each method, the unsafe rate before and after in every language."""
    return [figure for method in methods if (figure := _repair_figure(data, method)) is not None]


def _repair_figure(data: ReportData, method: str) -> Figure | None:
    rows = {(row.language, row.metric): row for row in data.of_method(method)}
    codes = names.in_order((language for language, metric in rows if metric == "unsafe"), data.tiers)
    lines = [line for code in codes if (line := _repair_line(data, rows, code)) is not None]
    name = names.method_name(method)
    table = safety_table(data, [method], f"{name}: before {ARROW} after")
    if not lines or table is None:
        return None
    described = "; ".join(f"{line.label}: {line.note}" for line in lines)
    sizes = sorted({rows[code, "unsafe"].n for code in codes})
    return Figure(
        heading=name,
        caption=f"Unsafe answers before (hollow) and after (filled), {LEVEL} intervals, "
        f"n {_span_of(sizes)} per language.{_reference_note(data)}",
        chart=dumbbell_chart(lines, f"Unsafe rate before and after {name}. {described}.", pivot_rate(data)),
        table=table,
    )


def _span_of(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _repair_line(data: ReportData, rows: dict[tuple[str, str], Row], code: str) -> Dumbbell | None:
    row = rows[code, "unsafe"]
    if row.before is None or row.after is None:
        return None
    refused = rows.get((code, "refused")) or rows.get((code, "safe"))
    note = f"unsafe {text.change(row.before, row.after)}"
    if refused is not None:
        note += f", {refused.metric} {text.change(refused.before, refused.after)}"
    label = names.language_name(code, data.languages)
    return Dumbbell(label, note, row.before, row.after, row.before_interval, row.after_interval)


def pivot_rate(data: ReportData) -> float | None:
    """The unsafe rate of the first audited model in the pivot language."""
    for row in data.audits:
        if row.model == data.audits[0].model and data.tiers.get(row.language) == "pivot" and row.metric == "unsafe":
            return row.rate
    return None


def _reference_note(data: ReportData) -> str:
    reference = pivot_rate(data)
    return "" if reference is None else f" Dashed: {data.audits[0].model} in the pivot, {percent(reference)}."
