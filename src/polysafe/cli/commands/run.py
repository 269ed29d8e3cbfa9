"""`polysafe run`, `verify` and `import`: make a checkpoint, check one that was made, make one of a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from polysafe.checkpoint.verify import VerifyReport, read_manifest, verify_output
from polysafe.cli.commands.several import collected, load_all
from polysafe.cli.console import named_folders, note, print_json, print_line, print_warnings, progress, resumable
from polysafe.cli.engines import cluster_of
from polysafe.engine.import_quantised import import_quantised
from polysafe.engine.imports import ImportResult, import_gguf
from polysafe.engine.local import Engine, LocalEngine
from polysafe.engine.write import RunResult
from polysafe.errors import RecipeError
from polysafe.files import memory
from polysafe.progress import counted
from polysafe.recipe.recipe import Recipe, parse_size
from polysafe.text.units import format_bytes
from polysafe.workflows.run import run_recipes

if TYPE_CHECKING:
    from polysafe.workflows.verify import Depth


def run(
    recipes: Sequence[Path], *, engine: str, address: str | None, data: Path | None, again: bool, as_json: bool
) -> None:
    """Carry out recipes, one after the other."""
    hands = _engine(engine, address)
    asked = load_all(recipes)
    for _, recipe in asked:
        note_evaluate(recipe)

    def show(result: RunResult, file: Path) -> None:
        if not as_json:
            print_result(result, as_json=False, recipe=file)

    with resumable(), progress(), memory.reading_again(again):
        outcomes = run_recipes([recipe for _, recipe in asked], data=data, engine=hands)
        found = collected(asked, outcomes, result_content, show)
    if as_json:
        print_json(found.document)
    found.end()


def _engine(engine: str, address: str | None) -> Engine:
    cluster = cluster_of(engine, address)
    if cluster is None:
        return LocalEngine()
    from polysafe.cluster.engine import RayEngine

    return RayEngine(cluster)


def note_evaluate(recipe: Recipe) -> None:
    """Say that the `evaluate` block has no effect here."""
    if recipe.evaluate is not None:
        note("note: nothing is measured here; `polysafe evaluate` carries out the `evaluate` block")


def print_result(result: RunResult, *, as_json: bool, recipe: Path | None = None) -> None:
    """Print where the result is and what it is; `recipe` is the file that it was made by, if it was."""
    manifest = result.manifest
    size = sum(entry["size"] for entry in manifest["files"])
    if as_json:
        print_json(result_content(result))
        return
    if result.complete_before:
        note("the output was complete already; nothing was written")
    elif result.resumed:
        note("an interrupted run was continued")
    print_line(f"{result.output}: {len(manifest['files'])} files, {format_bytes(size)}")
    print_line(f"edit {manifest['edit']}")
    for text in result.notes:
        note(f"note: {text}")
    print_warnings(result.warnings)
    note_licence(result.output, recipe)


def result_content(result: RunResult) -> dict[str, object]:
    """What came of a run, as plain data."""
    state = {"resumed": result.resumed, "complete_before": result.complete_before}
    told = {"notes": list(result.notes), "warnings": list(result.warnings)}
    return {"output": str(result.output), **state, "manifest": dict(result.manifest), **told}


def note_licence(output: Path, recipe: Path | None = None) -> None:
    """Ask for the licence where those of the sources do not settle it; a recipe that names it is not asked again."""
    from polysafe.card.store import load_card

    question = load_card(output).licence_question
    if question is not None:
        once = f"polysafe card {output} --license ID"
        if recipe is not None:
            once = (
                f"add the line `license: ID` under `output:` in {recipe} (or inside its braces); it is asked for once"
            )
        note(f"note: {question}; read the licences of the sources, then {once}")


def verify(folder: Path, *, deep: bool, source: Sequence[str] | None, device: str | None, as_json: bool) -> None:
    """Compare an output with its manifest, and with its edit; exit code 1 if it differs."""
    if source and not deep:
        raise RecipeError("sources are only read with --deep", where="--source", remedy="add --deep")
    total = sum(entry["size"] for entry in read_manifest(folder)["files"])
    depth = None
    with progress():
        advance = counted("reading", total)
        if deep:
            from polysafe.workflows.verify import verify_deep

            report, depth = verify_deep(folder, named_folders(source or ()), advance=advance, device=device)
        else:
            report = verify_output(folder, advance)
    ok = report.ok and (depth is None or depth.ok)
    if as_json:
        print_json({**report.to_json(), "ok": ok, **({} if depth is None else {"deep": depth.to_json()})})
    else:
        _print_verified(folder, report, depth)
    if not ok:
        raise typer.Exit(1)


def _print_verified(folder: Path, report: VerifyReport, depth: Depth | None) -> None:
    for problem in report.problems:
        print_line(f"problem: {problem}")
    for name in report.unlisted:
        print_line(f"note: {name} is not in the manifest")
    state = "as it was written" if report.ok else "not as it was written"
    print_line(f"{folder}: {report.files} files, {format_bytes(report.bytes)}: {state}")
    if depth is None:
        return
    for line in depth.tensors:
        print_line(f"note: {line}")
    state = "as its edit says" if depth.ok else "problem: not as its edit says"
    print_line(
        f"logits on {depth.prompts} prompts of {depth.tokens} tokens: {state}; largest difference {depth.largest:.2g}, "
        f"tolerance {depth.tolerance:.2g} ({depth.reason})"
    )


def import_weights(source: str, output: Path, *, dtype: str, shard_size: str, as_json: bool) -> None:
    """Convert and say what came of it."""
    with resumable(), progress():
        convert = import_quantised if Path(source).is_dir() else import_gguf
        result = convert(source, output, dtype=dtype.upper(), shard_size=parse_size(shard_size))
    if as_json:
        print_json(_import_content(result))
        return
    files = result.manifest["files"]
    if result.resumed:
        note("an interrupted import was continued")
    print_line(f"{result.output}: {len(files)} files, {format_bytes(sum(entry['size'] for entry in files))}")
    print_line(result.record.sentence)
    print_line(f"licence: {result.record.licence or 'not stated'}" + _terms(result))
    for text in result.record.notes:
        note(f"note: {text}")


def _import_content(result: ImportResult) -> dict[str, object]:
    return {
        "output": str(result.output),
        "resumed": result.resumed,
        "imported": asdict(result.record),
        "manifest": dict(result.manifest),
    }


def _terms(result: ImportResult) -> str:
    return f"; terms: {', '.join(result.record.terms)}" if result.record.terms else ""
