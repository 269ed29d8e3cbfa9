"""Applies a saved edit to checkpoints, takes it back, and exports it as an adapter."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.card.first import first_card
from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.output import MANIFEST, lock
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.checkpoint.verify import manifest_at, read_manifest
from polysafe.edits.edit import JSON_FILE, Edit
from polysafe.engine.given import open_given, require_folders, require_same
from polysafe.engine.job import Job
from polysafe.engine.plan import plan_edit
from polysafe.engine.write import RunResult, carry_out, with_digests
from polysafe.errors import EditError, MismatchError
from polysafe.progress import Progress, reporting, tell

if TYPE_CHECKING:
    from polysafe.edits.export import Export

SHARD_SIZE = 5_000_000_000


def load_edit(path: Path, *, force: bool = False) -> Edit:
    """Reads a saved edit that is to be used on models, with what vouches for it.

    Args:
        path: Its folder or its `edit.json`.
        force: Accept an edit that nothing vouches for.

    Raises:
        EditError: A file is missing, damaged, or of a newer schema.
        MismatchError: It is not the edit that the manifest beside it names, or it does not say which models it was
            made for.
        CheckpointError: The manifest beside it is damaged.
    """
    edit = Edit.load(path)
    if not force:
        beside = (path if path.is_dir() else path.parent) / Path(MANIFEST).name
        if os.path.lexists(beside):
            _require_recorded(edit, beside)
        _require_known(edit, edit.sources, path)
    return edit


def output_of(path: Path) -> Path:
    """The output whose records hold an edit, by its folder or its `edit.json`."""
    return (path if path.is_dir() else path.parent).absolute().parent


def _require_recorded(edit: Edit, beside: Path) -> None:
    recorded = manifest_at(beside)["edit"]
    if recorded != edit.sha256:
        raise MismatchError(
            f"was changed after it had been written: it has SHA-256 {edit.sha256}, its manifest says {recorded}",
            where=beside.with_name(JSON_FILE),
            remedy="make the model again; or accept the edit as it is with --force",
        )


def _require_known(edit: Edit, needed: Iterable[str], path: Path) -> None:
    if unknown := [name for name in needed if not edit.sources[name].files]:
        raise MismatchError(
            f"does not say which files {unknown[0]!r} were (their SHA-256 are not in it), so any model would be taken",
            where=path,
            remedy="use the edit as polysafe wrote it; `edit apply` and `edit export` accept any model with --force",
        )


def apply_edit(
    edit: Edit,
    sources: Mapping[str, Path],
    output: Path,
    *,
    tokenizer_from: str | None = None,
    shard_size: int = SHARD_SIZE,
    force: bool = False,
    recorded: Path | None = None,
    progress: Progress = tell,
) -> RunResult:
    """Writes the model that an edit makes of the given checkpoints.

    Args:
        edit: The edit.
        sources: Folder of every source that the edit names.
        output: The new folder.
        tokenizer_from: Source that tokenizer and chat template are copied from, by default the start of the edit.
        shard_size: Largest size of an output file in bytes.
        force: Accept checkpoints other than those that the edit was made for.
        recorded: Output that holds the edit; a wrong checkpoint is compared with what its recipe names.
        progress: Told what is done.

    Raises:
        EditError: A source has no folder.
        MismatchError: A checkpoint is not the one that the edit was made for.
        PolysafeError: As for every run.
    """
    require_folders(edit, sources)
    donor = tokenizer_from or edit.start
    if donor not in sources:
        raise EditError(f"no folder is given for {donor!r}, which gives the tokenizer")
    checkpoints = open_given(edit, sources, force=force, recorded=recorded)
    with reporting(progress):
        return _write(edit, checkpoints, output, donor, shard_size)


def undo_edit(edit: Edit, edited: Path, original: Path, output: Path, *, progress: Progress = tell) -> RunResult:
    """Gives back the model that an edit started from, bit for bit.

    Tensors that the edit left alone come from `edited`, the others from `original`, whose SHA-256 must be the one that
    the edit recorded.

    Args:
        edit: The edit that was applied.
        edited: The checkpoint it was applied to, as polysafe wrote it.
        original: The checkpoint that the edit started from.
        output: The new folder.
        progress: Told what is done.

    Raises:
        MismatchError: `edited` is not the unchanged output of `edit`, or `original` not what the edit started from.
        PolysafeError: As for every run.
    """
    manifest = read_manifest(Path(edited))
    if manifest["edit"] != edit.sha256:
        raise MismatchError("is not the output of this edit", where=edited, remedy="name the folder that it wrote")
    checkpoints = {
        "edited": open_checkpoint(edited, origin="edited"),
        "original": open_checkpoint(original, origin=edit.sources[edit.start].origin),
    }
    _require_known(edit, [edit.start], edited)
    require_same(edit, edit.start, checkpoints["original"])
    _require_intact(checkpoints["edited"], manifest)
    with reporting(progress):
        return _write(edit.undo(), checkpoints, output, "original", SHARD_SIZE)


def export_edit(
    edit: Edit,
    sources: Mapping[str, Path],
    output: Path,
    *,
    rank: int | None = None,
    partial: bool = False,
    dtype: str = "F32",
    base_name: str | None = None,
    force: bool = False,
    recorded: Path | None = None,
    progress: Progress = tell,
) -> Export:
    """Writes the LoRA adapter that stands for an edit of the given checkpoints.

    Args:
        edit: The edit.
        sources: Folder of every source that the edit names; that of a LoRA adapter where the source was one.
        output: The new folder.
        rank: Largest rank of a module, as for `export_adapter`.
        partial: Leave out what an adapter cannot express.
        dtype: Storage type of the factors.
        base_name: Name of the base model in the adapter's config.
        force: Accept checkpoints other than those that the edit was made for.
        recorded: Output that holds the edit; a wrong checkpoint is compared with what its recipe names.
        progress: Told what is done.

    Raises:
        EditError: A source has no folder, or as for `export_adapter`.
        MismatchError: A checkpoint is not the one that the edit was made for.
        OutputError: The output exists or cannot be written.
    """
    from polysafe.edits.export import export_adapter  # torch, which explaining an edit does not need

    checkpoints = open_given(edit, sources, force=force, recorded=recorded)
    with reporting(progress):
        edit = with_digests(edit, {name: checkpoints[name] for name in edit.sources})
        return export_adapter(
            edit,
            checkpoints,
            output,
            rank=rank,
            partial=partial,
            dtype=dtype,
            base_name=base_name,
            advance=lambda done, total: tell("decomposing", done, total),
        )


def _require_intact(checkpoint: Checkpoint, manifest: Mapping[str, Any]) -> None:
    written = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    for name, digest in checkpoint_digests(checkpoint).items():
        if written.get(name) != digest:
            raise MismatchError(
                "was changed after the edit had written it, so its tensors are not those of the original",
                where=checkpoint.root / name,
                remedy="use the original checkpoint itself",
            )


def _write(
    edit: Edit,
    checkpoints: Mapping[str, Checkpoint],
    output: Path,
    donor: str,
    shard_size: int,
) -> RunResult:
    job = Job(checkpoints, Path(output).absolute(), donor, shard_size, lambda: ())
    with lock(job.target):
        known = with_digests(edit, checkpoints)
        job = replace(job, parts=lambda: (known.sha256, donor, str(shard_size)))
        with job.readers() as readers:
            plan = plan_edit(job, known, readers)
        return carry_out(plan, lambda made: first_card(made, checkpoints, plan.layout, donor))
