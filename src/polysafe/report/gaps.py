"""The gap of each language to the pivot: which ones there are, and their mean."""

from __future__ import annotations

from collections.abc import Iterable

from polysafe.report import names
from polysafe.report.data import GapChange, ReportData
from polysafe.report.summary import Change, Scope, mean_of_intervals
from polysafe.stats.gaps import POOLED, Gap

_METRIC = "unsafe"


def gap_changes(data: ReportData, method: str | None, metric: str = _METRIC) -> list[GapChange]:
    """The gaps of one method and metric, languages in their order, the pooled one last."""
    found = [change for change in data.gaps if change.method == method and change.after.metric == metric]
    rank = _rank(data, (change.after.language for change in found))
    return sorted(found, key=lambda change: rank[change.after.language])


def model_gaps(data: ReportData, model: str, metric: str = _METRIC) -> list[Gap]:
    """The gaps of one unedited model and metric, languages in their order, the pooled one last."""
    found = [gap for gap in data.audit_gaps if gap.model == model and gap.metric == metric]
    rank = _rank(data, (gap.language for gap in found))
    return sorted(found, key=lambda gap: rank[gap.language])


def _rank(data: ReportData, languages: Iterable[str]) -> dict[str, int]:
    ordered = names.in_order(languages, data.tiers)
    return {code: len(ordered) if code == POOLED else place for place, code in enumerate(ordered)}


def mean_gap(data: ReportData, method: str, scope: Scope) -> Change | None:
    """The mean gap of the languages in scope, before and after; ends are differences in -1 … 1."""
    pairs = [
        (change, change.before.difference, change.after.difference)
        for change in gap_changes(data, method)
        if change.after.language in scope.languages
    ]
    known = [(change, before, after) for change, before, after in pairs if before is not None and after is not None]
    if not known:
        return None
    return Change(
        before=sum(before for _, before, _ in known) / len(known),
        after=sum(after for _, _, after in known) / len(known),
        before_interval=mean_of_intervals([change.before.interval for change, _, _ in known]),
        after_interval=mean_of_intervals([change.after.interval for change, _, _ in known]),
        languages=tuple(change.after.language for change, _, _ in known),
        items=tuple(change.after.n for change, _, _ in known),
    )


def pivot_name(data: ReportData, code: str) -> str:
    """The pivot's name alone, for sentences in which its code says nothing more."""
    return data.languages.get(code, code)
