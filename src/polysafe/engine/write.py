"""Carries out an edit: from checkpoints to a finished, verified-by-manifest output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.digest import checkpoint_digests, hash_file
from polysafe.checkpoint.layout import Layout
from polysafe.checkpoint.output import MANIFEST, RECORDS, Workspace
from polysafe.checkpoint.sidecar import SideFile
from polysafe.checkpoint.source import Checkpoint
from polysafe.checkpoint.update import finish_update
from polysafe.checkpoint.verify import manifest, read_manifest
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.engine.local import Engine, ShardTask
from polysafe.errors import OutputError
from polysafe.files.atomic import json_bytes, write_bytes_atomic, write_json_atomic
from polysafe.progress import counted


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        output: The finished folder.
        manifest: Its manifest.
        resumed: Whether the run continued what an earlier one had begun.
        complete_before: Whether the output was there already and nothing had to be done.
    """

    output: Path
    manifest: Mapping[str, Any]
    resumed: bool = False
    complete_before: bool = False


def identity(checkpoints: Mapping[str, Checkpoint], *parts: str) -> str:
    """Tells two jobs apart without reading weights: their parts, and name, size and time of every input file."""
    files = [
        [name, str(header.file), header.size, header.mtime_ns]
        for name, checkpoint in sorted(checkpoints.items())
        for header in checkpoint.headers
    ]
    return hashlib.sha256(json_bytes([list(parts), files])).hexdigest()


def with_digests(edit: Edit, checkpoints: Mapping[str, Checkpoint]) -> Edit:
    """The edit with the SHA-256 of its input files filled in."""
    used = {name: checkpoints[name] for name in edit.sources}
    total = sum(header.size for checkpoint in used.values() for header in checkpoint.headers)
    advance = counted("hashing inputs", total)
    records = {
        name: SourceRecord(origin=edit.sources[name].origin, files=checkpoint_digests(checkpoint, advance))
        for name, checkpoint in used.items()
    }
    return Edit(start=edit.start, steps=edit.steps, sources=records, provenance=edit.provenance, dtype=edit.dtype)


def existing_result(target: Path, edit: Edit) -> RunResult | None:
    """The result if `target` already is the output of exactly this edit. An interrupted update of it is finished first.

    Raises:
        OutputError: `target` is the output of another edit.
    """
    if not (target / MANIFEST).exists():
        return None
    finish_update(target)
    found = read_manifest(target)
    intact = is_whole(target, found)
    if found["edit"] == edit.sha256 and intact:
        return RunResult(target, found, complete_before=True)
    raise OutputError(
        "already holds the output of another edit" if intact else "holds a damaged output",
        where=target,
        remedy="remove that folder or choose another output",
    )


def is_whole(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether every file of a manifest is there in its size; `verify_output` also reads them."""
    return all(
        (folder / entry["path"]).is_file() and (folder / entry["path"]).stat().st_size == entry["size"]
        for entry in content["files"]
    )


def write_output(
    space: Workspace,
    edit: Edit,
    checkpoints: Mapping[str, Checkpoint],
    layout: Layout,
    side: tuple[SideFile, ...],
    records: Mapping[str, bytes],
    engine: Engine,
    resumed: bool,
) -> RunResult:
    """Writes every file into the workspace and publishes it. On failure the workspace stays, to be resumed.

    Args:
        space: The prepared workspace.
        edit: What to apply, with the digests of its inputs.
        checkpoints: The inputs by source name.
        layout: The files that hold tensors.
        side: The other files of the checkpoint.
        records: Files for the records folder beside edit and manifest.
        engine: Who does the work.
        resumed: Whether the workspace holds earlier work.

    Raises:
        PolysafeError: Reading or writing failed.
    """
    _write_small_files(space, edit, layout, side, records)
    used = {name: checkpoints[name] for name in edit.sources}
    tasks = [
        ShardTask(edit, used, shard, space.content, space.progress / f"{shard.name}.json") for shard in layout.shards
    ]
    digests = engine.execute(tasks, counted("writing", layout.size))
    for checkpoint in used.values():
        checkpoint.check_unchanged()
    weights = {shard.name: (shard.size, digest) for shard, digest in zip(layout.shards, digests, strict=True)}
    content = manifest(edit.sha256, {**small_digests(space, weights), **weights}, _source_lines(edit))
    try:
        write_json_atomic(space.content / MANIFEST, content)
    except OSError as error:
        raise output_error(space.content, error) from error
    space.publish()
    return RunResult(space.target, content, resumed=resumed)


def _write_small_files(
    space: Workspace, edit: Edit, layout: Layout, side: tuple[SideFile, ...], records: Mapping[str, bytes]
) -> None:
    index = layout.index()
    files = [*side, *([SideFile(*index)] if index else [])]
    files += [SideFile(f"{RECORDS}/{name}", content) for name, content in records.items()]
    try:
        edit.save(space.content / RECORDS)
        for file in files:
            path = space.content / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, file.content)
    except OSError as error:
        raise output_error(space.content, error) from error


def small_digests(space: Workspace, weights: Mapping[str, object]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every file in a workspace but the weights and the manifest."""
    paths = {path.relative_to(space.content).as_posix(): path for path in space.content.rglob("*") if path.is_file()}
    return {
        name: (path.stat().st_size, hash_file(path))
        for name, path in paths.items()
        if name not in weights and name != MANIFEST
    }


def _source_lines(edit: Edit) -> dict[str, Any]:
    return {name: record.model_dump() for name, record in edit.sources.items()}
