"""`polysafe reproduce`: make published results again and say what differs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from polysafe.cli.console import named_folders, note, print_json, print_line, print_table, progress, resumable
from polysafe.reproduce.finding import Finding
from polysafe.workflows.reproduce import COMPARISON, Reproduced
from polysafe.workflows.reproduce import reproduce as run_again

_SHOWN = 40
_WIDTH = 72


def reproduce(
    folder: Path,
    output: Path,
    *,
    source: Sequence[str] | None,
    data: Path | None,
    judge: Sequence[str] | None,
    judge_key: str | None,
    device: str | None,
    check_only: bool,
    as_json: bool,
) -> None:
    """Do it again; exit code 1 if something that was computed differs, 2 if an input does."""
    given = named_folders(source or ())
    with resumable(), progress():
        done = run_again(
            folder,
            output,
            sources=given,
            data=data,
            judge=judge or None,
            judge_key=judge_key,
            device=device,
            check_only=check_only,
        )
    if as_json:
        print_json(done.to_json())
    else:
        _print(done, output)
    if done.exit_code:
        raise typer.Exit(done.exit_code)


def _print(done: Reproduced, output: Path) -> None:
    shown = done.findings[:_SHOWN]
    if shown:
        print_table(("severity", "what", "recorded", "found"), [_cells(finding) for finding in shown])
    if len(done.findings) > len(shown):
        note(f"{len(done.findings) - len(shown)} more differences; --json shows all of them")
    print_line(done.sentence)
    if done.found is not None:
        print_line(f"comparison  {output / COMPARISON}")


def _cells(finding: Finding) -> tuple[str, ...]:
    # Hashes are shown whole, so that they can be compared by eye with those of a publisher.
    texts = (text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…" for text in (finding.recorded, finding.found))
    return (finding.severity, finding.what, *texts)
