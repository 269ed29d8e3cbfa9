"""`polysafe quickstart`: the whole story on the packaged family."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from polysafe.cli.commands.organism import required_texts
from polysafe.cli.commands.report import print_summary
from polysafe.cli.console import note, print_json, print_line, progress, resumable
from polysafe.methods.base import CONTROL
from polysafe.organism.packaged import NOTICE
from polysafe.processes import usable_cores
from polysafe.report.sections.choosing import choosing_sentences
from polysafe.workflows.quickstart import Quickstart, run_quickstart


def quickstart(
    output: Path,
    *,
    workers: int | None,
    family: Literal["toy", "gemma"],
    data: Path | None,
    seed: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Run it, say what came out and where the report is."""
    cores = workers or usable_cores()
    texts = required_texts(data) if family == "gemma" else None
    with resumable(), progress():
        if texts is None:
            done = run_quickstart(output, workers=cores)
        else:
            from polysafe.workflows.quickstart_gemma import run_gemma_quickstart

            done = run_gemma_quickstart(output, texts, seed=seed, limit=limit, workers=cores)
    _show(done, as_json=as_json)


def _show(done: Quickstart, *, as_json: bool) -> None:
    if as_json:
        rows = [asdict(row) for row in done.rows]
        files = {"report": str(done.report), "results": str(done.results)}
        print_json({**files, "notice": NOTICE, "verdict": done.verdict, "rows": rows})
        return
    print_summary(done.data)
    for sentence in choosing_sentences(done.data):
        print_line(f"chosen for {sentence}")
    controls = {row.method for row in done.rows if row.method.startswith(CONTROL)}
    note(f"controls, in the report and in the results: {len(controls)}")
    print_line(f"results  {done.results}")
    print_line(f"report   {done.report}")
