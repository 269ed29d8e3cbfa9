"""`polysafe inspect export` and `import`, and the option `--inspect-log`: runs as Inspect logs and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from polysafe.cli.console import note, print_json, print_line
from polysafe.evaluate.model_run import ModelRun
from polysafe.inspect_ai.export import export_run
from polysafe.inspect_ai.load import import_run


def export(run: Path, output: Path, *, as_json: bool) -> None:
    """Write a run as Inspect logs."""
    files = export_run(run, output)
    if as_json:
        print_json({"logs": [str(file) for file in files]})
        return
    for file in files:
        print_line(file)
    note(f"open them with: inspect view --log-dir {output}")


def import_logs(logs: Sequence[Path], output: Path, *, as_json: bool) -> None:
    """Read Inspect logs as a run."""
    run = import_run(logs, output)
    if as_json:
        print_json({"run": str(run.folder), "model": run.name, "judge": run.judge, "records": len(run.records)})
        return
    print_line(f"records  {run.folder}")


def write_logs(runs: Mapping[str, ModelRun], folder: Path | None) -> None:
    """Write the logs of runs, each in a folder of its name, where they were asked for."""
    if folder is None:
        return
    for name, run in runs.items():
        export_run(run, folder / name)
    note(f"inspect view --log-dir {folder}")
