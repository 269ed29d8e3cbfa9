"""`polysafe import`: an ordinary checkpoint folder of a GGUF file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from polysafe.cli.console import note, print_json, print_line, progress, resumable
from polysafe.engine.imports import ImportResult, import_gguf
from polysafe.recipe.recipe import parse_size
from polysafe.text.units import format_bytes


def import_weights(source: str, output: Path, *, dtype: str, shard_size: str, as_json: bool) -> None:
    """Convert and say what came of it."""
    with resumable(), progress():
        result = import_gguf(source, output, dtype=dtype.upper(), shard_size=parse_size(shard_size))
    if as_json:
        print_json(_content(result))
        return
    files = result.manifest["files"]
    if result.resumed:
        note("an interrupted import was continued")
    print_line(f"{result.output}: {len(files)} files, {format_bytes(sum(entry['size'] for entry in files))}")
    print_line(result.record.sentence)
    print_line(f"licence: {result.record.licence or 'not stated'}" + _terms(result))
    for text in result.record.notes:
        note(f"note: {text}")


def _content(result: ImportResult) -> dict[str, object]:
    return {
        "output": str(result.output),
        "resumed": result.resumed,
        "imported": asdict(result.record),
        "manifest": dict(result.manifest),
    }


def _terms(result: ImportResult) -> str:
    return f"; terms: {', '.join(result.record.terms)}" if result.record.terms else ""
