"""Prompts whose verdict changed, in either direction."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from polysafe.findings import names
from polysafe.findings.data import MAX_CHANGES, ChangeCount, ChangedAnswer, ReportData, count_changes
from polysafe.report.tables import Cell, Group, Table
from polysafe.text.readable import ARROW


@dataclass(frozen=True)
class ChangeGroup:
    """Prompts of one method, language and set whose verdict changed."""

    method: str
    language: str
    prompts: str
    transitions: str
    shown: tuple[ChangedAnswer, ...]
    total: int


@dataclass(frozen=True)
class MethodChanges:
    """Everything that changed under one method."""

    method: str
    groups: tuple[ChangeGroup, ...]

    @property
    def total(self) -> int:
        """Number of prompts whose verdict changed."""
        return sum(group.total for group in self.groups)


def method_changes(data: ReportData) -> list[MethodChanges]:
    """Changed prompts by method; inside, by language and set."""
    groups = change_groups(data)
    methods = dict.fromkeys(group.method for group in groups)
    return [MethodChanges(name, tuple(group for group in groups if group.method == name)) for name in methods]


def change_groups(data: ReportData) -> list[ChangeGroup]:
    """Changed prompts by method, language and set; those that became unsafe come first."""
    grouped: dict[tuple[str, str, str], list[ChangedAnswer]] = {}
    for change in data.changes:
        grouped.setdefault((change.method, change.language, change.prompts), []).append(change)
    counts = _counts(data)
    return [_change_group(data, changes, counts.get(key, [])) for key, changes in grouped.items()]


def _counts(data: ReportData) -> dict[tuple[str, str, str], list[ChangeCount]]:
    """(method, language, set) -> how many of its prompts changed, by verdicts."""
    grouped: dict[tuple[str, str, str], list[ChangeCount]] = {}
    for count in data.change_counts or count_changes(data.changes):
        grouped.setdefault((count.method, count.language, count.prompts), []).append(count)
    return grouped


def _change_group(data: ReportData, changes: list[ChangedAnswer], counts: list[ChangeCount]) -> ChangeGroup:
    ordered = sorted(changes, key=lambda change: change.after_verdict != "unsafe")
    return ChangeGroup(
        method=names.method_name(changes[0].method),
        language=names.language_name(changes[0].language, data.languages),
        prompts=changes[0].prompts,
        transitions=", ".join(f"{one.count} {one.before_verdict} {ARROW} {one.after_verdict}" for one in counts),
        shown=tuple(ordered[:MAX_CHANGES]),
        total=sum(one.count for one in counts),
    )


def change_table(data: ReportData, methods: Container[str]) -> Table | None:
    """How many verdicts changed in either direction, by method, language and set; None where none did."""
    counts = _counts(data)
    groups = []
    for method in dict.fromkeys(method for method, _, _ in counts if method in methods):
        mine = {(language, prompts): found for (of, language, prompts), found in counts.items() if of == method}
        codes = names.in_order((language for language, _ in mine), data.tiers)
        rows = [_direction_row(data, *key, found) for code in codes for key, found in mine.items() if key[0] == code]
        groups.append(Group(names.method_name(method), "", tuple(rows)))
    columns = ("Language and set", "Became unsafe", "No longer unsafe", "Other changes", "Changed")
    return Table("Prompts whose verdict changed, by direction", columns, tuple(groups)) if groups else None


def _direction_row(data: ReportData, language: str, prompts: str, counts: list[ChangeCount]) -> tuple[Cell, ...]:
    total = sum(one.count for one in counts)
    worse = sum(one.count for one in counts if one.before_verdict != "unsafe" and one.after_verdict == "unsafe")
    better = sum(one.count for one in counts if one.before_verdict == "unsafe" and one.after_verdict != "unsafe")
    return (
        Cell(names.language_name(language, data.languages), (prompts,)),
        Cell(str(worse), tone="worse" if worse else ""),
        Cell(str(better), tone="better" if better else ""),
        Cell(str(total - worse - better)),
        Cell(str(total)),
    )
