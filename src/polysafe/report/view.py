"""From report data to what the page shows, ready for the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polysafe.findings import names
from polysafe.findings.data import ReportData
from polysafe.findings.summary import main_and_other_methods
from polysafe.findings.verdict import judge
from polysafe.findings.without_judge import WITHOUT_JUDGE
from polysafe.report import tables
from polysafe.report.charts.gap_figures import gap_change_table, model_gap_table
from polysafe.report.decisions import DecisionMap, lay_out
from polysafe.report.facts import facts
from polysafe.report.first_screen import first_figures, tiles
from polysafe.report.limits import limits
from polysafe.report.sections.attacks import attack_sections
from polysafe.report.sections.broken import broken_maps
from polysafe.report.sections.categories import category_maps
from polysafe.report.sections.changes import change_table, method_changes
from polysafe.report.sections.choosing import choosing_sentences, choosing_table
from polysafe.report.sections.judges import UNCALIBRATED, agreement_table, judge_figures, phrase_table
from polysafe.report.sections.numbers import number_sections
from polysafe.report.sections.seeds import seed_table
from polysafe.report.sections.touched import touched_groups, touched_table
from polysafe.report.sections.tradeoff import comparison, tradeoffs
from polysafe.report.sections.unsafe import answers_figure, repair_figures
from polysafe.report.sections.versus import versus_sentences, versus_table
from polysafe.report.spreadsheet import tables as spreadsheets

__all__ = ["MapGroup", "map_groups", "page", "tiles"]


@dataclass(frozen=True)
class MapGroup:
    """The decision maps of one method, one per language, and their numbers."""

    method: str
    maps: tuple[DecisionMap, ...]
    table: tables.Table


def page(data: ReportData) -> dict[str, Any]:
    """Everything that the templates show, by the names that they use."""
    main, others = main_and_other_methods(data)
    named = {one.method for one in data.touched} | {one.method for one in data.changes}
    here = named.union(main, (one.method for one in data.change_counts)).difference(others)
    audit = not data.rows and bool(data.audits)
    shown: dict[str, Any] = {
        "data": data,
        "audit": audit,
        "verdict": judge(data),
        "tiles": tiles(data),
        "first": first_figures(data),
        "answers": None if audit else answers_figure(data),
        "repairs": repair_figures(data, main),
        "other_repairs": repair_figures(data, others),
        "tradeoffs": tradeoffs(data),
        "versus": versus_table(data),
        "versus_sentences": versus_sentences(data),
        "seeds": seed_table(data),
        "comparison": comparison(data),
        "choosing": choosing_table(data),
        "choosing_sentences": choosing_sentences(data),
        "tables": _tables(data, main, others),
        "gap_tables": _gap_tables(data, main, others),
        "categories": category_maps(data),
        "touched": touched_table(data, here),
        "other_touched": touched_table(data, others),
        "touched_groups": touched_groups(data),
        "maps": map_groups(data),
        "judged": bool(data.rows or data.audits),
        "judges": judge_figures(data),
        "uncalibrated": _uncalibrated(data),
        "phrases": phrase_table(data),
        "agreement": agreement_table(data),
        "numbers": number_sections(data),
        "facts": list(facts(data)),
        "broken": broken_maps(data),
        "attacks": attack_sections(data),
        "changes": method_changes(data),
        "directions": change_table(data, here),
        "other_directions": change_table(data, others),
        "limits": list(limits(data)),
        "files": ["report.json", *spreadsheets(data)],
    }
    kinds = {heading.lower(): "table" for heading, *_ in shown["tables"]}
    kinds |= {section.id: "numbers" for section in shown["numbers"]}
    return shown | {"contents": _contents(shown), "kinds": kinds}


def _uncalibrated(data: ReportData) -> str:
    if not data.judged:
        return WITHOUT_JUDGE
    return "" if data.judge_errors or data.corrected else UNCALIBRATED


def _tables(data: ReportData, main: list[str], others: list[str]) -> list[tuple[str, object, object]]:
    if not data.rows and data.audits:
        return [("Safety", tables.audit_table(data), None)]
    return [
        ("Safety", tables.safety_table(data, main), tables.safety_table(data, others)),
        ("Ability", tables.ability_table(data, main), tables.ability_table(data, others)),
    ]


def _gap_tables(data: ReportData, main: list[str], others: list[str]) -> list[tuple[str, tables.Table]]:
    if not data.rows:
        return [(f"Gaps of {model}", model_gap_table(data, model)) for model in _gap_models(data)[1:]]
    found = [
        ("Gaps to the pivot as a table", gap_change_table(data, main)),
        ("Gaps of baselines, published settings and controls", gap_change_table(data, others)),
        *((f"Gaps of {model}, unedited", model_gap_table(data, model)) for model in _gap_models(data)),
    ]
    return [(heading, table) for heading, table in found if table.groups]


def _gap_models(data: ReportData) -> list[str]:
    return list(dict.fromkeys(gap.model for gap in data.audit_gaps))


def _contents(shown: dict[str, Any]) -> list[tuple[str, str]]:
    """Id and title of the sections that are there, in the order of the page."""
    languages = shown["answers"] or shown["repairs"] or shown["other_repairs"] or shown["gap_tables"]
    sections = (
        ("methods", "Methods", shown["comparison"]),
        ("choosing", "Choosing", shown["choosing"]),
        ("languages", "Languages", languages),
        ("categories", "Categories", shown["categories"]),
        ("edit", "Edit", shown["touched"] or shown["other_touched"] or shown["maps"]),
        ("judge", "Judge", shown["judged"]),
        *((section.id, section.title, section.figures) for section in shown["numbers"]),
        ("attacks", "Under attack", shown["attacks"]),
        ("broken", "Broken answers", shown["broken"]),
        ("answers", "Changed answers", shown["directions"] or shown["other_directions"]),
        *((heading.lower(), heading, table or other) for heading, table, other in shown["tables"]),
        ("limits", "Limits", True),
        ("settings", "Settings", shown["data"].meta),
    )
    return [(id_, title) for id_, title, there in sections if there]


def map_groups(data: ReportData) -> list[MapGroup]:
    """The decision maps of every method that made decisions."""
    groups = []
    for method, by_language in data.decisions.items():
        codes = names.in_order(by_language, data.tiers)
        maps = tuple(lay_out(code, by_language[code]) for code in codes)
        groups.append(MapGroup(names.method_name(method), maps, tables.decision_table(data, maps)))
    return groups
