"""`polysafe plan`: what a recipe would do, and what that takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polysafe.checkpoint.writer import output_error
from polysafe.cli.commands.forecast import foreseen, print_forecast
from polysafe.cli.commands.several import Outcomes, collected, load_all
from polysafe.cli.console import print_json, print_line, print_table, print_warnings, progress, resumable
from polysafe.cli.decisions import print_decisions, print_operations, print_trials
from polysafe.engine.plan import Outline, Plan, check_together
from polysafe.files import memory
from polysafe.files.atomic import write_json_atomic
from polysafe.text.units import format_bytes, format_seconds
from polysafe.workflows.run import plan_recipes


def plan(
    recipes: Sequence[Path],
    *,
    again: bool,
    fit: bool,
    data: Path | None,
    as_json: bool,
    save: Path | None,
    **elsewhere: Any,
) -> None:
    """Decide, print, and refuse what does not fit this machine; without `fit`, no model is run.

    With `nodes`, only say what it takes `elsewhere`.
    """
    asked = load_all(recipes)
    if (shown := foreseen(asked, data, **elsewhere)) is not None:
        if save is not None:
            _save(shown.to_json(), save)
        print_forecast(shown, as_json=as_json)
        return

    def show(planned: Plan | Outline, file: Path) -> None:
        if as_json:
            return
        if len(asked) > 1:
            print_line(f"{planned.output}:")
        if isinstance(planned, Plan):
            print_plan(planned)
        else:
            _print_outline(planned, file)

    with resumable() if fit else nullcontext(), progress(), memory.reading_again(again):
        outcomes = plan_recipes([recipe for _, recipe in asked], fit=fit, data=data)
        found: Outcomes[Plan | Outline] = collected(asked, outcomes, plan_content, show)
    if save is not None:
        _save(found.document, save)
    if as_json:
        print_json(found.document)
    check_together([each for each in found.made if isinstance(each, Plan)])
    found.end()


def _print_outline(needed: Outline, recipe: Path) -> None:
    rows = [
        (
            label,
            each.what,
            each.model,
            each.prompts or "–",
            each.languages,
            each.times,
            each.prompts * each.times or "–",
        )
        for label, work in needed.work.items()
        for each in work
    ]
    columns = ("edit", "what is read", "by", ">prompts", ">languages", ">times", ">in all")
    print_table(columns, rows, title="what has to be run first")
    for text in needed.notes:
        print_line(f"note: {text}")
    print_line(
        f"nothing was run; `polysafe plan --fit {recipe}` does it and keeps what it decides for `polysafe run`, "
        "which does it too where nothing is kept"
    )


def _save(content: object, file: Path) -> None:
    try:
        write_json_atomic(file, content)
    except OSError as error:
        raise output_error(file, error) from error


def plan_content(planned: Plan | Outline) -> dict[str, Any]:
    """The plan with what it costs on this machine, as plain data."""
    if isinstance(planned, Outline):
        return planned.to_json()
    return {**planned.to_json(), "output": str(planned.output), "cost": asdict(planned.cost)}


def print_plan(planned: Plan) -> None:
    """Print a plan as tables."""
    for part in planned.edit.provenance:
        print_decisions(part.label, part.decisions)
        print_trials(part.evidence)
    print_operations(planned.operations)
    print_table(("", ">"), _needs(planned), title="what it takes")
    for text in planned.remarks:
        print_line(f"note: {text}")
    print_warnings(planned.warnings)


def _needs(planned: Plan) -> list[tuple[str, str]]:
    cost = planned.cost
    return [
        ("output", str(planned.output)),
        ("files", str(len(planned.layout.shards))),
        ("tokenizer from", planned.job.donor),
        ("reads", format_bytes(cost.bytes_read)),
        ("writes", format_bytes(cost.bytes_written)),
        ("free on disk", format_bytes(cost.free_disk)),
        ("peak memory", f"{format_bytes(cost.peak_memory)} of {format_bytes(cost.free_memory)}"),
        ("time, about", format_seconds(cost.seconds)),
    ]
