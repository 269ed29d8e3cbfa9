"""Finds out what a folder is, and reads what its report shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from polysafe.checkpoint.output import Workspace
from polysafe.data.groupings import Grouping
from polysafe.errors import DataError
from polysafe.evaluate.audited import read_audit
from polysafe.evaluate.compare import RESULTS
from polysafe.evaluate.model_run import RUN, ModelRun
from polysafe.evaluate.saved import FILE as EVALUATION
from polysafe.evaluate.saved import SavedEvaluation
from polysafe.findings.choosing import load_choosing
from polysafe.findings.data import ReportData
from polysafe.findings.runs import audit_report, evaluation_report
from polysafe.findings.settings import about_groups, language_names, language_tiers
from polysafe.stats.rows import load_rows
from polysafe.stats.versus import of_methods

REPORT = "report"
DATA = "report.json"


def load_report_data(folder: Path | str, *, pivot: str = "en", groups: Grouping | None = None) -> ReportData:
    """What the report of a folder shows.

    Args:
        folder: What `polysafe audit`, `evaluate`, `compare` or `quickstart` wrote, or a folder with a `results.json`.
            The first two are read anew from their records; the others from the `report.json` that they left.
        pivot: Language that the others are compared with, for an audit; the other folders know theirs.
        groups: Whose resource levels languages are shown in.

    Raises:
        DataError: It is none of these, or was changed since.
    """
    root = Path(folder)
    if (root / EVALUATION).exists():
        return replace(evaluation_report(SavedEvaluation.load(root), groups=groups), choosing=load_choosing(root))
    if (root / RUN).exists():
        return audit_report(read_audit(ModelRun.load(root), pivot), pivot=pivot, groups=groups)
    if (root / REPORT / DATA).exists():
        return _regrouped(ReportData.load(root / REPORT / DATA), groups)
    if (root / RESULTS).exists():
        return _of_rows(root, pivot, groups)
    if Workspace(root).begun:
        ModelRun.load(root)  # says that it is not finished
    raise DataError(
        "holds nothing that a report can be made of",
        where=root,
        remedy="name a folder that audit, evaluate, compare or quickstart wrote",
    )


def _of_rows(root: Path, pivot: str, groups: Grouping | None) -> ReportData:
    rows = of_methods(load_rows(root / RESULTS))
    languages = tuple(dict.fromkeys(row.language for row in rows))
    _, tiers = language_tiers(languages, pivot, groups)
    names = language_names(languages, toy=False)
    limits = ("Only rows were there to make this report of: no answers, gaps, settings or hashes.",)
    return ReportData("Results", tuple(rows), toy=False, tiers=tiers, languages=names, limits=limits)


def _regrouped(data: ReportData, groups: Grouping | None) -> ReportData:
    if groups is None:
        return data
    pivot = next((code for code, tier in data.tiers.items() if tier == "pivot"), groups.pivot)
    languages = tuple(dict.fromkeys([row.language for row in data.audits] + [row.language for row in data.rows]))
    _, tiers = language_tiers(languages, pivot, groups)
    told = about_groups(groups, languages, pivot)
    return replace(data, tiers=tiers, meta={**data.meta, "Language groups": told})
