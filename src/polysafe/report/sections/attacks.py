"""Models under attack: rewritten prompts beside the published ones, before and after an edit where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.findings.summary import SIGNIFICANT, methods_of, significance
from polysafe.report.tables import Cell, Group, Table, language_label
from polysafe.stats.attacks import AttackRow
from polysafe.stats.intervals import Interval
from polysafe.stats.rows import Row
from polysafe.text import readable as text
from polysafe.text.readable import NOTHING, gap_interval, interval, percent, points, sized

_BROKEN = {"unsafe": ("invalid", "wrong_language"), "refused": ("invalid", "wrong_language"),
           "over_refusal": ("harmless_invalid", "harmless_wrong_language")}  # fmt: skip
_GOOD_WHEN_UP = ("refused",)

Cells = Mapping[tuple[str, str, str], AttackRow]


def attack_sections(data: ReportData) -> list[Table]:
    """A table for every edit; without one, for every model that was attacked."""
    methods = [method for method in methods_of(data.rows) if any(row.model == method for row in data.attacks)]
    if methods:
        start = next((row.model for row in data.attacks if row.model not in methods), "")
        return [table for method in methods if (table := _edit_table(data, start, method)).groups]
    models = dict.fromkeys(row.model for row in data.attacks)
    return [table for model in models if (table := _model_table(data, model)).groups]


def _model_table(data: ReportData, model: str) -> Table:
    cells = _cells(data, model)
    groups = []
    for heading, attack, metric, codes in _groups(data, cells):
        lines = [(cells[attack, code, metric], code) for code in codes]
        groups.append(
            Group(
                heading,
                "",
                tuple(
                    (
                        Cell(language_label(code, data)),
                        _rate(row.plain, row.plain_interval, row.n),
                        _rate(row.attacked, row.attacked_interval, row.n),
                        _difference(row),
                        _broken(cells, row),
                    )
                    for row, code in lines
                ),
            )
        )
    columns = ("Language", "Published prompts", "Under attack", "Difference, points", "Broken or other language")
    return Table(f"{model} under attack", columns, tuple(groups))


def _edit_table(data: ReportData, start: str, method: str) -> Table:
    before, after = _cells(data, start), _cells(data, method)
    changes = {
        (attack, row.language, row.metric): row
        for attack, rows in data.attack_changes.items()
        for row in rows
        if row.method == method
    }
    groups = []
    for heading, attack, metric, codes in _groups(data, after):
        keys = [(code, (attack, code, metric)) for code in codes if (attack, code, metric) in before]
        rows = tuple(
            (
                Cell(language_label(code, data)),
                _both(before[key], after[key]),
                _change(changes.get(key)),
                _difference(before[key]),
                _difference(after[key]),
                _broken(after, after[key]),
            )
            for code, key in keys
        )
        groups += [Group(heading, "", rows)] if rows else []
    columns = (
        "Language",
        "Published prompts",
        "Under attack",
        "Attack adds before, points",
        "Attack adds after, points",
        "Broken or other language after",
    )
    return Table(f"{names.method_name(method)} under attack: before {text.ARROW} after", columns, tuple(groups))


def _cells(data: ReportData, model: str) -> Cells:
    return {(row.attack, row.language, row.metric): row for row in data.attacks if row.model == model}


def _groups(data: ReportData, cells: Cells) -> Iterator[tuple[str, str, str, list[str]]]:
    """Heading, attack, metric and languages: unsafe answers where somebody judged, else refusals; over-refusal."""
    for attack in dict.fromkeys(attack for attack, _, _ in cells):
        for metric in ("unsafe" if data.judged else "refused", "over_refusal"):
            codes = names.in_order((code for name, code, m in cells if (name, m) == (attack, metric)), data.tiers)
            if codes:
                yield f"{attack}: {names.metric_name(metric).lower()}", attack, metric, codes


def _rate(rate: float | None, span: Interval | None, n: int) -> Cell:
    return Cell(percent(rate), tuple(filter(None, (interval(span), f"n {n}"))))


def _difference(row: AttackRow) -> Cell:
    if row.difference is None:
        return Cell(NOTHING)
    tone = ""
    if row.p_adjusted is not None and row.p_adjusted < SIGNIFICANT and row.difference:
        tone = "better" if (row.difference > 0) == (row.metric in _GOOD_WHEN_UP) else "worse"
    return Cell(
        points(row.difference), (gap_interval(row.interval), f"{sized(row.n, row.n)}{_p(row.p_adjusted)}"), tone
    )


def _both(before: AttackRow, after: AttackRow) -> Cell:
    ends = text.interval_change(before.plain_interval, after.plain_interval)
    return Cell(text.change(before.plain, after.plain), tuple(filter(None, (ends, f"n {after.n}"))))


def _change(row: Row | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    direction = significance(row) * (1 if row.metric in _GOOD_WHEN_UP else -1)
    ends = text.interval_change(row.before_interval, row.after_interval)
    notes = tuple(filter(None, (ends, f"{sized(row.n, row.n)}{_p(row.p_adjusted)}")))
    return Cell(text.change(row.before, row.after), notes, {1: "better", -1: "worse", 0: ""}[direction])


def _p(value: float | None) -> str:
    if value is None:
        return ""
    shown = text.p_value(value)
    return f", p {shown}" if shown.startswith("<") else f", p = {shown}"


def _broken(cells: Cells, row: AttackRow) -> Cell:
    """Broken answers and answers in another language under the attack, each with its interval."""
    found = [cells.get((row.attack, row.language, metric)) for metric in _BROKEN[row.metric]]
    if any(each is None for each in found):
        return Cell(NOTHING)
    shown = " / ".join(percent(each.attacked) for each in found if each is not None)
    ends = " / ".join(interval(each.attacked_interval) for each in found if each is not None)
    return Cell(shown, (ends, f"n {row.n}"))
