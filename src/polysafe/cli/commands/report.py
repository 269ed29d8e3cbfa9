"""`polysafe report` and `polysafe compare`, and how every command says what its report says first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from polysafe.checkpoint.writer import output_error
from polysafe.cli.console import note, print_json, print_line, print_table
from polysafe.data.groupings import Grouping
from polysafe.data.groupings import grouping as named_grouping
from polysafe.errors import RecipeError
from polysafe.evaluate.compare import RESULTS, Comparison, compare_runs
from polysafe.evaluate.model_run import ModelRun
from polysafe.findings.contests import contest_rows
from polysafe.findings.data import ReportData
from polysafe.findings.runs import comparison_report
from polysafe.findings.verdict import judge
from polysafe.report.html import build_report
from polysafe.report.notebook import Run
from polysafe.report.screen import first_screen
from polysafe.stats.attacks import under
from polysafe.stats.rows import save_rows
from polysafe.text.readable import MAX_LABEL, clip


def report(run: Path, *, pivot: str, grouping: str | None, as_json: bool) -> None:
    """Build a folder's report anew and say what it says first."""
    found = Run.load(run, pivot=pivot, groups=_groups(grouping))
    page = found.report()
    if as_json:
        rows = [asdict(row) for row in found.rows or found.data.audits]
        print_json({"report": str(page), "verdict": judge(found.data).sentence, "toy": found.data.toy, "rows": rows})
        return
    print_summary(found.data)
    print_line(f"report   {page}")


def compare(
    before: Path,
    after: Sequence[Path],
    *,
    method: Sequence[str] | None,
    output: Path | None,
    pivot: str,
    grouping: str | None,
    as_json: bool,
) -> None:
    """Compare one or more runs with the one before them, language by language."""
    start, others = ModelRun.load(before), [ModelRun.load(folder) for folder in after]
    found = [compare_runs(start, run, name) for run, name in zip(others, _names(others, method or ()), strict=True)]
    data = comparison_report(found, pivot=pivot, groups=_groups(grouping))
    written = {} if output is None else _write(data, output)
    if as_json:
        print_json({**_as_json(found), "means": [asdict(mean) for mean in data.means], **written})
        return
    print_summary(data)
    for name, path in written.items():
        print_line(f"{name:8} {path}")


def _groups(name: str | None) -> Grouping | None:
    return None if name is None else named_grouping(name)


def _names(runs: Sequence[ModelRun], methods: Sequence[str]) -> list[str]:
    """What the edits are called: as the user says, else `edit`, or as their runs where there are several."""
    names = list(methods) or ([run.name for run in runs] if len(runs) > 1 else ["edit"])
    if len(names) != len(runs):
        raise RecipeError(f"{len(names)} names for {len(runs)} runs", remedy="repeat --method once for every run")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise RecipeError(f"two runs are called {twice[0]!r}", remedy="name each of them with --method")
    return names


def _write(data: ReportData, output: Path) -> dict[str, str]:
    results = output / RESULTS
    try:
        output.mkdir(parents=True, exist_ok=True)
        attacked = [row for attack, rows in data.attack_changes.items() for row in under(rows, attack)]
        save_rows(results, [*data.rows, *contest_rows(data.contests), *attacked])
    except OSError as error:
        raise output_error(results, error) from error
    return {"results": str(results), "report": str(build_report(data, output))}


def _as_json(comparisons: Sequence[Comparison]) -> dict[str, object]:
    if len(comparisons) == 1:
        return comparisons[0].to_json()
    rows = [asdict(row) for comparison in comparisons for row in comparison.rows]
    return {"rows": rows, "comparisons": [comparison.to_json() for comparison in comparisons]}


def print_summary(data: ReportData) -> None:
    """Print what the report says first, and what limits it."""
    screen = first_screen(data)
    print_line(f"{screen.label}. {screen.sentence}")
    if screen.evidence:
        print_line(screen.evidence)
    print_line()
    for table in screen.tables:
        rows = [[clip(cell, MAX_LABEL) for cell in row] for row in table.rows]
        print_table(table.columns, rows, title=clip(table.title, MAX_LABEL))
    for limit in (*data.limits, *screen.notes):
        note(limit)
