"""`polysafe edit`: explain, apply, undo and export a saved edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.cli.commands.run import print_result
from polysafe.cli.console import named_folders, print_json, print_line, print_table, print_warnings, progress, resumable
from polysafe.cli.decisions import print_decisions, print_operations, print_trials
from polysafe.edits.edit import Edit
from polysafe.edits.explain import explain as explain_edit
from polysafe.errors import EditError
from polysafe.files.yaml_lines import write_yaml
from polysafe.text.units import format_bytes
from polysafe.workflows.apply import apply_edit, export_edit, load_edit, output_of, undo_edit

if TYPE_CHECKING:
    from polysafe.edits.export import Export


def explain(edit: Path, *, as_json: bool) -> None:
    """Print what an edit does."""
    saved = Edit.load(edit)
    content = explain_edit(saved)
    if as_json:
        print_json(content)
        return
    print_line(f"edit {saved.sha256}, {format_bytes(saved.nbytes)}, starts from {saved.start!r}")
    print_table(("source", "made from"), [(name, record.origin) for name, record in saved.sources.items()])
    for part in saved.provenance:
        given = {name: value for name, value in part.options.items() if value is not None}
        for line in write_yaml([{"method": part.method, **given}]).split("\n"):
            print_line(line)
        print_decisions(part.label, part.decisions)
        print_trials(part.evidence)
    print_operations(content["operations"])
    for part in saved.provenance:
        for text in part.notes:
            print_line(f"note: {text}")
        print_warnings(part.warnings)
    implausible = content.get("implausible", [])
    more = [f"{len(implausible) - 3} more numbers are implausible"] if len(implausible) > 3 else []
    print_warnings([*(f"implausible: {told}" for told in implausible[:3]), *more])


def apply(
    edit: Path,
    source: Sequence[str],
    output: Path,
    *,
    tokenizer_from: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Apply an edit to the models it names."""
    saved, folders = load_edit(edit, force=force), named_folders(source)
    with resumable(), progress():
        result = apply_edit(
            saved, folders, output, tokenizer_from=tokenizer_from, force=force, recorded=output_of(edit)
        )
    print_result(result, as_json=as_json)


def controls(recipe: Path, output: Path, *, draws: int, as_json: bool) -> None:
    """Save the edit of a recipe and its controls."""
    from polysafe.recipe.recipe import load_recipe
    from polysafe.workflows.controls import write_controls

    with progress():
        written = dict(write_controls(load_recipe(recipe), output, draws))
    if as_json:
        print_json({label: str(folder) for label, folder in written.items()})
    else:
        print_table(("edit", "folder"), list(written.items()))


def undo(edit: Path, edited: Path, original: Path, output: Path, *, as_json: bool) -> None:
    """Take an edit back."""
    saved = Edit.load(edit)
    with resumable(), progress():
        result = undo_edit(saved, edited, original, output)
    print_result(result, as_json=as_json)


def export(
    edit: Path,
    source: Sequence[str],
    output: Path,
    *,
    peft: bool,
    rank: int | None,
    partial: bool,
    dtype: str,
    base_name: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write an edit as a LoRA adapter."""
    if not peft:
        raise EditError("no form is chosen", where="edit export", remedy="add `--peft` for a LoRA adapter")
    saved, folders = load_edit(edit, force=force), named_folders(source)
    with progress():
        result = export_edit(
            saved,
            folders,
            output,
            rank=rank,
            partial=partial,
            dtype=dtype,
            base_name=base_name,
            force=force,
            recorded=output_of(edit),
        )
    if as_json:
        print_json(result.to_json())
    else:
        _print_export(result)


def _print_export(result: Export) -> None:
    rows = [(m.module, m.how, m.rank, m.needed, f"{m.relative_error:.1e}") for m in result.modules]
    print_table(("module", "update", ">rank", ">rank that loses nothing", ">relative error"), rows)
    if result.left_out:
        print_table(("left out", "what it is"), [(part.tensor, part.reason) for part in result.left_out])
    for name, tensors in result.dropped.items():
        print_line(f"note: {name} also adapts {len(tensors)} tensors that the edit leaves alone, first {tensors[0]}")
    for text in result.notes:
        print_line(f"note: {text}")
    print_line(
        f"{result.output}: {len(result.modules)} modules, {format_bytes(result.size)} in {result.dtype}, "
        f"relative error {result.relative_error:.1e}"
    )
    if result.left_out:
        print_warnings([f"what is left out is {result.left_out_share:.1%} of the edit (Frobenius norm)"])
