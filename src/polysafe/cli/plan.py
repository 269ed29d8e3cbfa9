"""`polysafe plan`: what a recipe would do, and what that takes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from polysafe.checkpoint.atomic import write_json_atomic
from polysafe.checkpoint.output import check_target
from polysafe.checkpoint.writer import output_error
from polysafe.cli.console import (
    format_bytes,
    format_seconds,
    print_json,
    print_line,
    print_table,
    print_warnings,
    progress,
)
from polysafe.cli.decisions import print_decisions, print_operations
from polysafe.engine.plan import Plan, make_plan
from polysafe.recipe import load_recipe


def plan(recipe: Path, *, as_json: bool, save: Path | None) -> None:
    """Decide, print, and refuse what does not fit this machine."""
    with progress():
        planned = make_plan(load_recipe(recipe))
    content = plan_content(planned)
    if save is not None:
        _save(content, save)
    if as_json:
        print_json(content)
    else:
        print_plan(planned)
    check_target(planned.output, [checkpoint.root for checkpoint in planned.checkpoints.values()])
    planned.cost.check(planned.output)


def _save(content: dict[str, Any], file: Path) -> None:
    try:
        write_json_atomic(file, content)
    except OSError as error:
        raise output_error(file, error) from error


def plan_content(planned: Plan) -> dict[str, Any]:
    """The plan with what it costs on this machine, as plain data."""
    return {**planned.to_json(), "output": str(planned.output), "cost": asdict(planned.cost)}


def print_plan(planned: Plan) -> None:
    """Print a plan as tables."""
    for part in planned.edit.provenance:
        print_decisions(part.label, part.decisions)
    print_operations(planned.operations)
    print_table(("", ">"), _needs(planned), title="what it takes")
    for text in planned.notes:
        print_line(f"note: {text}")
    for part in planned.edit.provenance:
        for text in part.notes:
            print_line(f"note: {text}")
    print_warnings(planned.warnings)


def _needs(planned: Plan) -> list[tuple[str, str]]:
    cost = planned.cost
    return [
        ("output", str(planned.output)),
        ("files", str(len(planned.layout.shards))),
        ("tokenizer from", planned.donor),
        ("reads", format_bytes(cost.bytes_read)),
        ("writes", format_bytes(cost.bytes_written)),
        ("free on disk", format_bytes(cost.free_disk)),
        ("peak memory", f"{format_bytes(cost.peak_memory)} of {format_bytes(cost.free_memory)}"),
        ("time, about", format_seconds(cost.seconds)),
    ]
