"""Carries out an edit: from checkpoints to a finished, verified-by-manifest output folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.output import MANIFEST, RECORDS
from polysafe.checkpoint.sidecar import SideFile
from polysafe.checkpoint.source import Checkpoint
from polysafe.checkpoint.update import finish_update
from polysafe.checkpoint.verify import is_whole, manifest, read_manifest, small_digests
from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.engine.local import Engine, LocalEngine, ShardTask
from polysafe.engine.plan import Plan
from polysafe.errors import OutputError
from polysafe.files.atomic import write_bytes_atomic, write_json_atomic
from polysafe.progress import counted


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Attributes:
        output: The finished folder.
        manifest: Its manifest.
        resumed: Whether the run continued what an earlier one had begun.
        complete_before: Whether the output was there already and nothing had to be done.
        notes: What the plan notes of the inputs and of the output.
        warnings: What should be read before relying on the output.
    """

    output: Path
    manifest: Mapping[str, Any]
    resumed: bool = False
    complete_before: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def with_digests(edit: Edit, checkpoints: Mapping[str, Checkpoint]) -> Edit:
    """The edit with the SHA-256 of its input files filled in.

    Raises:
        CheckpointError: A file cannot be read, or is in the hub's cache under the hash of another one.
    """
    used = {name: checkpoints[name] for name in edit.sources}
    total = sum(header.size for checkpoint in used.values() for header in checkpoint.headers)
    advance = counted("hashing inputs", total)
    records = {
        name: SourceRecord(origin=edit.sources[name].origin, files=checkpoint_digests(checkpoint, advance))
        for name, checkpoint in used.items()
    }
    return Edit(start=edit.start, steps=edit.steps, sources=records, provenance=edit.provenance, dtype=edit.dtype)


def _knows_inputs(edit: Edit) -> bool:
    return all(record.files for record in edit.sources.values())


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


def carry_out(
    plan: Plan,
    card: Callable[[Edit], tuple[SideFile, ...]],
    records: Callable[[Edit], Mapping[str, bytes]] = lambda _: {},
    engine: Engine | None = None,
) -> RunResult:
    """Writes every file into the workspace and publishes it; goes on where an earlier run of the same job stopped.

    Inputs that are not hashed yet are while files are written (`checkpoint.digest.hashed_ahead`), and what waits for
    their hashes is written again at the end. On failure the workspace stays, to be resumed. Whoever calls this holds
    the lock of the output.

    Args:
        plan: What to do.
        card: Gives the model card and what belongs to it, for the edit with the digests of its inputs.
        records: Gives files for the records folder beside edit and manifest.
        engine: Who does the work; this process by default.

    Raises:
        PolysafeError: The output does not fit, or reading or writing failed.
    """
    job, space, edit = plan.job, plan.job.space, plan.edit
    if (job.target / MANIFEST).exists() and not _knows_inputs(edit):
        edit = with_digests(edit, job.checkpoints)
    if (done := existing_result(job.target, edit)) is not None:
        if space.holds(job.identity):
            space.discard()
        return replace(done, notes=plan.remarks, warnings=plan.warnings)
    plan.cost.check(job.target, already_written=space.size())
    resumed = space.prepare(job.identity)
    _write_small_files(plan, edit, card, records)
    used = {name: job.checkpoints[name] for name in edit.sources}
    tasks = [
        ShardTask(edit, used, shard, space.content, space.progress / f"{shard.name}.json")
        for shard in plan.layout.shards
    ]
    digests = (engine or LocalEngine()).execute(tasks, counted("writing", plan.layout.size))
    if not _knows_inputs(edit):
        edit = with_digests(edit, job.checkpoints)
        _write_small_files(plan, edit, card, records)
    for checkpoint in used.values():
        checkpoint.check_unchanged()
    weights = {shard.name: (shard.size, digest) for shard, digest in zip(plan.layout.shards, digests, strict=True)}
    content = manifest(edit.sha256, {**small_digests(space.content, weights), **weights}, _source_lines(edit))
    try:
        write_json_atomic(space.content / MANIFEST, content)
    except OSError as error:
        raise output_error(space.content, error) from error
    space.publish()
    return RunResult(space.target, content, resumed=resumed, notes=plan.remarks, warnings=plan.warnings)


def _write_small_files(
    plan: Plan,
    edit: Edit,
    card: Callable[[Edit], tuple[SideFile, ...]],
    records: Callable[[Edit], Mapping[str, bytes]],
) -> None:
    space, index = plan.job.space, plan.layout.index()
    files = [*plan.side, *card(edit), *([SideFile(*index)] if index else [])]
    files += [SideFile(f"{RECORDS}/{name}", content) for name, content in records(edit).items()]
    try:
        edit.save(space.content / RECORDS)
        for file in files:
            path = space.content / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, file.content)
    except OSError as error:
        raise output_error(space.content, error) from error


def _source_lines(edit: Edit) -> dict[str, Any]:
    return {name: record.model_dump() for name, record in edit.sources.items()}
