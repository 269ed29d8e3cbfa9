"""`polysafe init` and `polysafe repair`: from a model to a recipe, and to a repaired model with its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from polysafe.checkpoint.writer import output_error
from polysafe.cli.console import note, print_json, print_line, print_table, progress, resumable
from polysafe.cli.options import listed
from polysafe.errors import OutputError
from polysafe.files.atomic import write_bytes_atomic
from polysafe.judge.spec import named_judge
from polysafe.workflows.first_recipe import Given, attempts, chosen_attempt, spoken_languages, written
from polysafe.workflows.repair import Attempt, Repaired
from polysafe.workflows.repair import repair as carry_out


def init(*, output: Path, method: str | None, **given: Any) -> None:
    """Write a recipe; an existing file is never replaced."""
    if output.exists():
        raise OutputError("is there already", where=output, remedy="name another file, or delete this one")
    found = attempts(_given(output.absolute().parent / "out", given))
    text = written(chosen_attempt(found, method), output.parent)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(output, text.encode())
    except OSError as error:
        raise output_error(output, error) from error
    print_line(output)
    others = [name for name in found.recipes if f"method: {name}\n" not in text]
    if others:
        note(f"could be tried too: {', '.join(others)} (--method)")
    for name, reason in found.left_out.items():
        note(f"not possible: {name}: {reason}")
    note(f"next: `polysafe search {output} --output search`")


def repair(
    *, output: Path, minutes: float, trials: int, workers: int, controls: int, as_json: bool, **given: Any
) -> None:
    """Repair, print, and end with exit code 1 where nothing helped."""
    from polysafe.findings.load import load_report_data
    from polysafe.report.html import build_report

    with resumable(), progress():
        found = carry_out(
            _given(output, given), output, minutes=minutes, trials=trials, workers=workers, controls=controls
        )
    page = None
    if found.evaluation is not None:
        shown = load_report_data(found.evaluation.results.parent)
        page = build_report(shown, found.evaluation.results.parent)
    if as_json:
        print_json({**found.to_json(), "report": None if page is None else str(page)})
    else:
        _print_repaired(found, page)
        if page is not None:
            from polysafe.cli.commands.report import print_summary

            print_summary(shown)
    if found.recipe is None:
        raise typer.Exit(1)


def _given(output: Path, given: dict[str, Any]) -> Given:
    return Given(
        model=given["model"],
        languages=spoken_languages(listed(given["languages"])),
        output=output,
        pivot=given["pivot"],
        base=given["base"],
        safety=given["safety_expert"],
        harmful=given["harmful"],
        data=given["data"],
        judge=named_judge(given["judge"], given["judge_key"]),
        anchors=given["anchors"],
        anchors_harmless=given["anchors_harmless"],
        safety_sets=tuple(listed(given["validation"])),
        harmless_sets=tuple(listed(given["validation_harmless"])),
        report_safety=tuple(listed(given["safety"])),
        report_harmless=tuple(listed(given["over_refusal"])),
        capability=tuple(listed(given["capability"])),
        limit=given["limit"],
        template=given["template"],
        dtype=given["dtype"],
        max_tokens=given["max_tokens"],
    )


def _print_repaired(found: Repaired, page: Path | None) -> None:
    before = next((each.found.unedited for each in found.attempts if each.found is not None), ())
    if before:
        table = [(each.language, each.metric, f"{each.mean:.3g}", each.unit, str(each.n)) for each in before]
        print_table(("language", "metric", ">mean", "", ">n"), table, title="the model on validation prompts")
    rows = [(each.name, _points(each), _gain(each), each.verdict) for each in found.attempts]
    print_table(("tried", ">points", ">gain", "what came of it"), rows, title="what was tried")
    for name, reason in found.left_out.items():
        print_line(f"not tried: {name}: {reason}")
    if found.recipe is None:
        print_line(f"nothing helped: {found.choice.reason}")
        print_line("nothing was made; the searches are kept beside repair.json")
        return
    print_line(f"taken: {found.taken}, {found.choice.reason}")
    print_line(f"recipe   {found.recipe}")
    print_line(f"report   {page}")


def _points(attempt: Attempt) -> str:
    return "" if attempt.found is None else str(len(attempt.found.points))


def _gain(attempt: Attempt) -> str:
    return "" if attempt.outcome is None else f"{attempt.outcome.mean_gain:+.3f}"
