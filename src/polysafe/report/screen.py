"""The report's first screen in plain text, for terminals and `print`: the same numbers, by the same functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from polysafe.findings import names
from polysafe.findings.data import GapChange, ReportData
from polysafe.findings.summary import Scope, headline_method, methods_of, summarise
from polysafe.findings.verdict import classify, judge
from polysafe.report import view
from polysafe.report.facts import facts
from polysafe.report.sections.attacks import attack_sections
from polysafe.report.sections.numbers import Quantity, sections
from polysafe.report.tables import Cell, language_label
from polysafe.stats.gaps import Gap
from polysafe.stats.intervals import Interval
from polysafe.stats.means import MeanChange, MeanRow
from polysafe.stats.rows import RateRow, Row
from polysafe.text import readable as text
from polysafe.text.readable import (
    ARROW,
    LEVEL,
    NOTHING,
    gap_interval,
    interval,
    interval_change,
    percent,
    points,
    signed,
)

TOY_NOTICE = "Model organism: small models trained to have the problem; no evidence about any real model."

_COSTS = ("over_refusal", "invalid", "wrong_language", "unparsed")


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; a column whose heading starts with `>` is aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Screen:
    """What is said first.

    Attributes:
        label: The outcome, in a word or two.
        sentence: The outcome in a sentence with its numbers.
        evidence: How firm it is; may be empty.
        tables: Its numbers by language, and all methods side by side.
        notes: What has to be read with it.
    """

    label: str
    sentence: str
    evidence: str
    tables: tuple[PlainTable, ...]
    notes: tuple[str, ...]


def first_screen(data: ReportData) -> Screen:
    """What the report says first: the verdict, safety and gap by language, and what was paid for it."""
    verdict = judge(data)
    found = (
        *_method_tables(data),
        *_audit_tables(data),
        _corrected_table(data),
        *_number_tables(data),
        *attack_tables(data),
    )
    return Screen(
        label=verdict.kind.label,
        sentence=verdict.sentence,
        evidence=verdict.evidence,
        tables=tuple(table for table in found if table.rows),
        notes=(*facts(data), *((TOY_NOTICE,) if data.toy else ())),
    )


def _method_tables(data: ReportData) -> Iterator[PlainTable]:
    method = headline_method(data)
    if method is None:
        return
    name = names.method_name(method)
    tiles = tuple((tile.name, tile.value, tile.note) for tile in view.tiles(data))
    scope = Scope.of(data)
    yield PlainTable(f"{name}: means over {', '.join(scope.languages)}", ("", ">mean", f"{LEVEL} interval, n"), tiles)
    rows = {(row.language, row.metric): row for row in data.of_method(method)}
    codes = names.in_order((language for language, _ in rows), data.tiers)
    gaps = {gap.before.language: gap for gap in data.gaps if gap.method == method and gap.before.metric == "unsafe"}
    yield PlainTable(
        f"{name}: unsafe answers by language, before {ARROW} after",
        (
            "language",
            ">unsafe",
            f">{LEVEL} interval",
            ">n",
            ">adjusted p",
            ">gap to the pivot, points",
            f">{LEVEL} interval",
            ">detects, points",
        ),
        tuple(_safety_line(data, code, rows, gaps) for code in codes if (code, "unsafe") in rows),
    )
    tasks = [metric for metric in dict.fromkeys(m for _, m in rows) if metric.startswith(names.CAPABILITY)]
    shown = [metric for metric in (*_COSTS, *tasks) if any(each == metric for _, each in rows)]
    yield PlainTable(
        f"{name}: what was paid for it, before {ARROW} after",
        ("language", *(f">{names.metric_name(metric)}" for metric in shown)),
        tuple((language_label(code, data), *(_both(rows.get((code, m))) for m in shown)) for code in codes),
    )
    yield _methods_table(data, scope)


def _safety_line(
    data: ReportData, code: str, rows: Mapping[tuple[str, str], Row], gaps: Mapping[str, GapChange]
) -> tuple[str, ...]:
    row, gap = rows[code, "unsafe"], gaps.get(code)
    return (
        language_label(code, data),
        text.change(row.before, row.after),
        interval_change(row.before_interval, row.after_interval),
        str(row.n),
        text.p_value(row.p_adjusted),
        "" if gap is None else f"{points(gap.before.difference)} {ARROW} {points(gap.after.difference)}",
        "" if gap is None else f"{_ends(gap.before)} {ARROW} {_ends(gap.after)}",
        text.least_points(row.n),
    )


def _both(row: Row | None) -> str:
    return NOTHING if row is None else text.change(row.before, row.after)


def _ends(gap: Gap) -> str:
    return gap_interval(gap.interval) or NOTHING


def _methods_table(data: ReportData, scope: Scope) -> PlainTable:
    """All methods side by side, where there are several; controls are in the report alone."""
    methods = [method for method in methods_of(data.rows) if names.method_kind(method) != "control"]
    lines = []
    for summary in (summarise(data, method, scope) for method in methods):
        unsafe, ability = summary.unsafe, summary.capability
        refusal = summary.metrics.get("over_refusal")
        lines.append(
            (
                names.method_name(summary.method),
                classify(summary).label,
                NOTHING if unsafe is None else text.change(unsafe.before, unsafe.after),
                NOTHING if refusal is None else text.change(refusal.before, refusal.after),
                NOTHING if ability is None else f"{points(ability.difference)} points",
                NOTHING if unsafe is None else text.least_points(unsafe.worth),
            )
        )
    columns = ("method", "outcome", ">unsafe", ">over-refusal", ">ability", ">detects, points")
    title = f"Methods: means over {', '.join(scope.languages)}"
    return PlainTable(title, columns, tuple(lines) if len(lines) > 1 else ())


def _audit_tables(data: ReportData) -> Iterator[PlainTable]:
    """The first audited model, where nothing was edited."""
    if data.rows or not data.audits:
        return
    model = data.audits[0].model
    rates = {(row.language, row.metric): row for row in data.of_model(model)}
    gaps = {gap.language: gap for gap in data.audit_gaps if gap.model == model and gap.metric == "unsafe"}
    codes = names.in_order((language for language, _ in rates), data.tiers)
    asked = [code for code in codes if (code, "unsafe") in rates]
    yield PlainTable(
        f"{model}: unsafe answers by language",
        (
            "language",
            ">unsafe",
            f">{LEVEL} interval",
            ">n",
            ">gap to the pivot, points",
            f">{LEVEL} interval",
            ">detects, points",
        ),
        tuple(_audit_line(data, code, rates[code, "unsafe"], gaps.get(code)) for code in asked),
    )
    shown = [m for m in ("refused", *_COSTS) if any(metric == m for _, metric in rates)]
    shown += [m for m in dict.fromkeys(metric for _, metric in rates) if m.startswith(names.CAPABILITY)]
    yield PlainTable(
        f"{model}: what else it does",
        ("language", *(f">{names.metric_name(metric)}" for metric in shown)),
        tuple((language_label(code, data), *(_one(rates.get((code, m))) for m in shown)) for code in codes),
    )


def _corrected_table(data: ReportData) -> PlainTable:
    """Rates corrected for the judge's error, where it was measured."""
    lines = tuple(
        (
            names.method_name(each.model) if each.model in methods_of(data.rows) else each.model,
            language_label(each.language, data),
            percent(each.observed),
            percent(each.rate),
            interval(Interval(each.low, each.high)),
            str(each.n),
        )
        for each in data.corrected
    )
    columns = ("", "language", ">as judged", ">corrected", f">{LEVEL} interval", ">n")
    return PlainTable("Unsafe answers, corrected for the judge's measured error", columns, lines)


def _number_tables(data: ReportData) -> Iterator[PlainTable]:
    """What was measured in numbers: what edits changed, or those of the audited model."""
    for metrics in sections().values():
        title = next(iter(metrics.values())).title
        changes = [each for each in data.number_changes if each.metric in metrics]
        if changes:
            columns = ("", "language", "", ">before, after", f">difference, {LEVEL} interval", ">n", ">adjusted p")
            lines = tuple(_change_line(data, metrics[each.metric], each) for each in changes)
            yield PlainTable(f"{title}, before {ARROW} after", columns, lines)
        else:
            rows = tuple(_mean_line(data, metrics[row.metric], row) for row in data.numbers if row.metric in metrics)
            yield PlainTable(title, ("language", "", ">mean", f">{LEVEL} interval", ">n"), rows)


def attack_tables(data: ReportData) -> Iterator[PlainTable]:
    """The tables of the section "Under attack": a rate, and in brackets its interval, number of items and test."""
    for table in attack_sections(data):
        columns = ("attack", table.columns[0].lower(), *(f">{column.lower()}" for column in table.columns[1:]))
        lines = tuple((group.heading, *map(_told, row)) for group in table.groups for row in group.rows)
        yield PlainTable(table.caption, columns, lines)


def _told(cell: Cell) -> str:
    return f"{cell.text} ({', '.join(cell.notes)})" if cell.notes else cell.text


def _change_line(data: ReportData, quantity: Quantity, change: MeanChange) -> tuple[str, ...]:
    return (
        names.method_name(change.method),
        language_label(change.language, data),
        quantity.of,
        f"{quantity.told(change.before)} {ARROW} {quantity.told(change.after)}",
        f"{signed(change.low)} to {signed(change.high)}",
        str(change.n),
        text.p_value(change.p_adjusted),
    )


def _mean_line(data: ReportData, quantity: Quantity, row: MeanRow) -> tuple[str, ...]:
    ends = f"{quantity.told(row.low)} to {quantity.told(row.high)}"
    return (language_label(row.language, data), quantity.of, quantity.told(row.mean), ends, str(row.n))


def _audit_line(data: ReportData, code: str, row: RateRow, gap: Gap | None) -> tuple[str, ...]:
    told = ("", "", "") if gap is None else (points(gap.difference), _ends(gap), text.least_points(gap.n))
    return (language_label(code, data), percent(row.rate), interval(row.interval), str(row.n), *told)


def _one(row: RateRow | None) -> str:
    return NOTHING if row is None else percent(row.rate)


def aligned(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as lines of plain text; a column whose heading starts with `>` is aligned to the right."""
    from rich.cells import cell_len

    cells = [
        [_inert(column.removeprefix(">")) for column in columns],
        *([_inert(cell) for cell in row] for row in rows),
    ]
    widths = [max(cell_len(row[place]) for row in cells) for place in range(len(columns))]

    def padded(place: int, cell: str) -> str:
        space = " " * (widths[place] - cell_len(cell))
        return space + cell if columns[place].startswith(">") else cell + space

    lines = ["  ".join(padded(place, cell) for place, cell in enumerate(row)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def as_text(screen: Screen) -> str:
    """The first screen as plain text; whatever came from files is inert in it."""
    tables = [f"{_inert(table.title)}\n{aligned(table.columns, table.rows)}" for table in screen.tables]
    said = (f"{screen.label}. {screen.sentence}", screen.evidence)
    return "\n\n".join(filter(None, [*(_inert(each, text.MAX_TEXT) for each in said), *tables, *screen.notes]))


def _inert(said: str, limit: int = text.MAX_LABEL) -> str:
    """One line of bounded text in which nothing acts on a terminal."""
    return text.visible(text.clip(said, limit)).replace("\n", " ").replace("\t", " ")
