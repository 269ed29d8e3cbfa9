"""Applies a saved edit to checkpoints, and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polysafe import __version__
from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.layout import plan_layout
from polysafe.checkpoint.lora import open_reader
from polysafe.checkpoint.output import Workspace, check_target, lock
from polysafe.checkpoint.sidecar import side_files
from polysafe.checkpoint.source import Checkpoint, check_editable, open_checkpoint
from polysafe.checkpoint.verify import read_manifest
from polysafe.edits.edit import Edit
from polysafe.edits.evaluate import EditedReader
from polysafe.engine.local import LocalEngine
from polysafe.engine.plan import estimate_cost
from polysafe.engine.progress import Progress
from polysafe.engine.write import RunResult, existing_result, identity, with_digests, write_output
from polysafe.errors import EditError, MismatchError

SHARD_SIZE = 5_000_000_000


def apply_edit(
    edit: Edit,
    sources: Mapping[str, Path],
    output: Path,
    *,
    tokenizer_from: str | None = None,
    shard_size: int = SHARD_SIZE,
    force: bool = False,
    progress: Progress = lambda *_: None,
) -> RunResult:
    """Writes the model that an edit makes of the given checkpoints.

    Args:
        edit: The edit.
        sources: Folder of every source that the edit names.
        output: The new folder.
        tokenizer_from: Source that tokenizer and chat template are copied from, by default the start of the edit.
        shard_size: Largest size of an output file in bytes.
        force: Accept checkpoints other than those that the edit was made for.
        progress: Told what is done.

    Raises:
        EditError: A source has no folder.
        MismatchError: A checkpoint is not the one that the edit was made for.
        PolysafeError: As for every run.
    """
    if missing := [name for name in edit.sources if name not in sources]:
        raise EditError(
            f"no folder is given for its source {missing[0]!r}",
            remedy=f"name one folder each for: {', '.join(edit.sources)}",
        )
    donor = tokenizer_from or edit.start
    if donor not in sources:
        raise EditError(f"no folder is given for {donor!r}, which gives the tokenizer")
    checkpoints = {name: open_checkpoint(sources[name], origin=Path(sources[name]).name) for name in sources}
    for name in edit.sources:
        check_editable(checkpoints[name])
        if not force:
            _require_same(edit, name, checkpoints[name])
    return _write(edit, checkpoints, output, donor, shard_size, progress)


def undo_edit(
    edit: Edit, edited: Path, original: Path, output: Path, *, progress: Progress = lambda *_: None
) -> RunResult:
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
    _require_same(edit, edit.start, checkpoints["original"])
    _require_intact(checkpoints["edited"], manifest)
    return _write(edit.undo(), checkpoints, output, "original", SHARD_SIZE, progress)


def _require_same(edit: Edit, name: str, checkpoint: Checkpoint) -> None:
    expected = edit.sources[name].files
    if expected and checkpoint_digests(checkpoint) != expected:
        raise MismatchError(
            f"is not the checkpoint that the edit was made for as {name!r} ({edit.sources[name].origin}): "
            "the SHA-256 of its weight files differ",
            where=checkpoint.root,
            remedy="use the original files, or force the edit onto this checkpoint",
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
    progress: Progress,
) -> RunResult:
    target = Path(output).absolute()
    check_target(target, [folder for checkpoint in checkpoints.values() for folder in checkpoint.folders])
    with lock(target):
        edit = with_digests(edit, checkpoints, progress)
        done = existing_result(target, edit)
        if done is not None:
            return done
        readers = {name: open_reader(checkpoint) for name, checkpoint in checkpoints.items()}
        edited = EditedReader(edit, readers)
        layout = plan_layout([edited.spec(name) for name in edited.names()], shard_size)
        side = tuple(side_files(checkpoints[edit.start], checkpoints[donor], edit.dtype))
        space = Workspace(target)
        estimate_cost(edit, checkpoints, layout, side, target).check(target, already_written=space.size())
        resumed = space.prepare(identity(checkpoints, __version__, edit.sha256, donor, str(shard_size)))
        return write_output(space, edit, checkpoints, layout, side, {}, LocalEngine(), progress, resumed)
