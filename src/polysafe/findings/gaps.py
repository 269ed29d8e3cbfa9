"""The gap of each language to the pivot: which ones there are, and their mean."""

from __future__ import annotations

from collections.abc import Iterable

from polysafe.findings import names
from polysafe.findings.data import GapChange, ReportData
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


def pivot_name(data: ReportData, code: str) -> str:
    """The pivot's name alone, for sentences in which its code says nothing more."""
    return data.languages.get(code, code)
