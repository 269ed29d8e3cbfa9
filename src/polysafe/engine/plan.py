"""From a recipe to a plan: what would be written, from what, and what it costs. Nothing is written here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import psutil

from polysafe.checkpoint.dtypes import EDITABLE
from polysafe.checkpoint.layout import Layout, plan_layout
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import COPY_BYTES, CheckpointReader, TensorReader
from polysafe.checkpoint.sidecar import SideFile, has_chat_template, left_out, side_files
from polysafe.checkpoint.source import Checkpoint
from polysafe.edits.edit import Decision, Edit
from polysafe.edits.explain import operations
from polysafe.edits.reader import EditedReader
from polysafe.engine.job import Job, RecipeJob, resolve
from polysafe.engine.local import READ_AHEAD
from polysafe.engine.support import kept_for, support_of
from polysafe.errors import ResourceError
from polysafe.evaluate.journal import Store
from polysafe.methods.base import Method, Support, Work
from polysafe.progress import Progress, counted, reporting, tell
from polysafe.recipe.recipe import Recipe

SCHEMA = 1
IMPORTS = 300 << 20
"""Resident size of the interpreter with torch, which is there before the first block is read."""
ASSUMED_RATE = 300e6
"""Bytes per second that a disk is trusted with until reading the inputs has shown better or worse."""


@dataclass(frozen=True)
class Cost:
    """What carrying out a plan takes.

    Attributes:
        bytes_read: Bytes read from the inputs to write the output.
        bytes_written: Size of the output without its card and records.
        peak_memory: Resident memory in bytes, interpreter and torch included.
        free_memory: Memory that is available now.
        free_disk: Free bytes on the disk of the output.
        seconds: Estimated time to write the output.
    """

    bytes_read: int
    bytes_written: int
    peak_memory: int
    free_memory: int
    free_disk: int
    seconds: float

    def check(self, output: Path, *, already_written: int = 0) -> None:
        """Refuses what cannot fit.

        Args:
            output: Where the output goes, for the message.
            already_written: Bytes of it that an interrupted run has left on the disk.

        Raises:
            ResourceError: Disk or memory are too small.
        """
        if self.bytes_written - already_written > self.free_disk:
            raise ResourceError(
                f"the output needs {self.bytes_written:,} bytes, the disk has {self.free_disk:,} free",
                where=output,
                remedy="free some space or choose an output on another disk",
            )
        if self.peak_memory > self.free_memory:
            raise ResourceError(
                f"the run needs about {self.peak_memory:,} bytes of memory, {self.free_memory:,} are available",
                remedy="close other programs; `arithmetic: float32` needs the least",
            )


@dataclass(frozen=True)
class Plan:
    """A job, decided.

    Attributes:
        job: What was asked for.
        edit: What was decided.
        layout: The output files.
        side: The files that come with the weights.
        cost: What carrying it out takes.
        notes: Findings about the inputs.
    """

    job: Job
    edit: Edit
    layout: Layout
    side: tuple[SideFile, ...]
    cost: Cost
    notes: tuple[str, ...] = field(default=())

    @property
    def output(self) -> Path:
        """The folder that will be written."""
        return self.job.target

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """The decisions of all methods in order."""
        return tuple(decision for part in self.edit.provenance for decision in part.decisions)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should be read before relying on the result."""
        return tuple(warning for part in self.edit.provenance for warning in part.warnings)

    @property
    def remarks(self) -> tuple[str, ...]:
        """All notes, those of the methods too, each once."""
        return tuple(dict.fromkeys((*self.notes, *(note for part in self.edit.provenance for note in part.notes))))

    @cached_property
    def operations(self) -> Mapping[str, int]:
        """Number of tensors by what happens to them, for example `copy of safety`."""
        return operations(self.edit, self.layout)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data; the edit is in its own file."""
        return {
            "polysafe_plan": SCHEMA,
            "start": self.edit.start,
            "tokenizer_from": self.job.donor,
            "sources": {name: record.model_dump() for name, record in self.edit.sources.items()},
            "methods": [part.model_dump(mode="json") for part in self.edit.provenance],
            "operations": dict(self.operations),
            "files": {shard.name: shard.size for shard in self.layout.shards},
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def with_edit(self, edit: Edit) -> Plan:
        """The same plan with another edit."""
        return replace(self, edit=edit)


def check_together(plans: Sequence[Plan]) -> None:
    """Refuses what cannot fit: each alone, and the outputs of all on each disk.

    Raises:
        ResourceError: A disk or the memory is too small.
    """
    disks: dict[int, list[Plan]] = {}
    for plan in plans:
        plan.cost.check(plan.output)
        disks.setdefault(_existing(plan.output).stat().st_dev, []).append(plan)
    for (first, *_), written in ((each, sum(plan.cost.bytes_written for plan in each)) for each in disks.values()):
        replace(first.cost, bytes_written=written).check(first.output.parent)


@dataclass(frozen=True)
class Outline:
    """A recipe that a model has to be run for before it is decided, and what for.

    Attributes:
        recipe: The recipe.
        work: Label of an edit -> what it has to run.
        notes: Findings about the inputs.
    """

    recipe: Recipe
    work: Mapping[str, tuple[Work, ...]]
    notes: tuple[str, ...] = ()

    @property
    def output(self) -> Path:
        """The folder that will be written."""
        return self.recipe.output.path

    def to_json(self) -> dict[str, Any]:
        """The outline as plain data."""
        work = {label: [asdict(each) for each in steps] for label, steps in self.work.items()}
        return {
            "polysafe_plan": SCHEMA,
            "fitted": False,
            "work": work,
            "notes": list(self.notes),
            "output": str(self.output),
        }


def outline(job: RecipeJob) -> Outline:
    """What a recipe has to run models for before it is decided. Reads headers and prompts, runs and writes nothing.

    Raises:
        PolysafeError: A source or a set of prompts is unusable.
    """
    with ExitStack() as stack:
        sources = stack.enter_context(job.sources())
        steps = [
            (method.label, tuple(method.work(sources, support_of(job.recipe, method, job.checkpoints, stack))))
            for method in job.recipe.edits
        ]
        notes = (*_all_notes(sources), *_donor_notes(job))
    return Outline(job.recipe, {label: work for label, work in steps if work}, notes)


@overload
def make_plan(
    recipe: Recipe | RecipeJob,
    progress: Progress = ...,
    *,
    edit: Edit | None = ...,
    fit: Literal[True] = ...,
    journal: Store | None = ...,
) -> Plan: ...
@overload
def make_plan(
    recipe: Recipe | RecipeJob,
    progress: Progress = ...,
    *,
    edit: Edit | None = ...,
    fit: bool,
    journal: Store | None = ...,
) -> Plan | Outline: ...
def make_plan(
    recipe: Recipe | RecipeJob,
    progress: Progress = tell,
    *,
    edit: Edit | None = None,
    fit: bool = True,
    journal: Store | None = None,
) -> Plan | Outline:
    """Lets the methods of a recipe decide, and adds up the cost. Writes nothing.

    Methods that need a model run it here, which may take long; without `fit` they do not, and what they would run is
    returned instead of a plan.

    Args:
        recipe: The recipe, or the job that it was resolved to.
        progress: Told how much of the sources has been read to decide.
        edit: What the methods decided in an earlier run, to be used instead of deciding again.
        fit: Whether to run models where a method needs that.
        journal: Where candidates that were compared are looked up and kept; that of this very job.

    Raises:
        PolysafeError: As for `resolve`; the sources do not fit together, or an option does not fit them. Whether the
            result fits this machine is judged by `Plan.cost.check`.
    """
    job = recipe if isinstance(recipe, RecipeJob) else resolve(recipe, progress)
    needed = None if edit is not None else outline(job)
    if needed is not None and needed.work and not fit:
        return needed
    runs = needed is not None and bool(needed.work)  # then bytes that were read say nothing of the time left
    with ExitStack() as stack:
        stack.enter_context(reporting(progress))
        size = sum(checkpoint.total_bytes for checkpoint in job.checkpoints.values())
        meter = counted("deciding", 1 if runs else size)
        sources = stack.enter_context(job.sources() if runs else job.sources(meter))
        began = time.perf_counter()
        decided = edit or _fit(job, sources, stack, journal)
        meter.finish()
        rate = _observed_rate(sources, time.perf_counter() - began)
        readers = {name: source.reader for name, source in sources.items()}
        return plan_edit(job, decided, readers, rate=rate, notes=_all_notes(sources))


def plan_edit(
    job: Job,
    edit: Edit,
    readers: Mapping[str, TensorReader],
    *,
    rate: float = ASSUMED_RATE,
    notes: tuple[str, ...] = (),
) -> Plan:
    """The plan of a job whose edit is there.

    Args:
        job: The job.
        edit: The edit.
        readers: The inputs of the job, open.
        rate: Reading speed in bytes per second.
        notes: Findings about the inputs.
    """
    edited = EditedReader(edit, readers)
    layout = plan_layout([edited.spec(name) for name in edited.names()], job.shard_size)
    side = tuple(side_files(job.checkpoints[edit.start], job.checkpoints[job.donor], edit.dtype))
    notes += _donor_notes(job)
    return Plan(job, edit, layout, side, estimate_cost(edit, job.checkpoints, layout, side, job.target, rate), notes)


def _fit(job: RecipeJob, sources: dict[str, Source], stack: ExitStack, journal: Store | None) -> Edit:
    def support(place: int, method: Method) -> Support:
        kept = None if journal is None else kept_for(journal, place)
        return support_of(job.recipe, method, job.checkpoints, stack, kept)

    return _stored(decide(job.recipe.edits, sources, support), job.recipe.output.dtype, sources)


def _stored(edit: Edit, dtype: str | None, sources: Mapping[str, Source]) -> Edit:
    """The same edit with its result in another type; as it is where the model that it starts from has that type."""
    specs = sources[edit.start].checkpoint.tensors.values()
    if dtype is None or all((edit.dtype or spec.dtype) == dtype for spec in specs if spec.dtype in EDITABLE):
        return edit
    return Edit(start=edit.start, steps=edit.steps, sources=edit.sources, provenance=edit.provenance, dtype=dtype)


def decide(methods: Sequence[Method], sources: Mapping[str, Source], support: Callable[[int, Method], Support]) -> Edit:
    """Lets methods decide, each on the result of the one before under the name of the model that all of them change.

    Args:
        methods: The edits of a recipe.
        sources: Its sources.
        support: Place and method -> what the method is given.

    Raises:
        PolysafeError: As for `Method.fit_with`.
    """
    first, *others = methods
    whole = first.fit_with(sources, support(0, first))
    readers = {name: source.reader for name, source in sources.items()}
    for place, method in enumerate(others, start=1):
        from polysafe.probe.model import resident_behind  # torch, which a single edit may not need

        behind = replace(sources[first.start], reader=EditedReader(whole, readers))
        with resident_behind(behind, whole, readers):
            whole = whole.then(method.fit_with({**sources, first.start: behind}, support(place, method)))
    return whole


def estimate_cost(
    edit: Edit,
    checkpoints: Mapping[str, Checkpoint],
    layout: Layout,
    side: tuple[SideFile, ...],
    output: Path,
    rate: float = ASSUMED_RATE,
) -> Cost:
    """What writing the result of `edit` takes; `rate` is the reading speed in bytes per second."""
    reads = sum(
        checkpoints[source].tensors[spec.name].nbytes
        for shard in layout.shards
        for spec in shard.tensors
        for source in edit.reads(spec.name)
    )
    index = layout.index()
    written = layout.size + sum(len(file.content) for file in side) + (len(index[1]) if index else 0)
    return Cost(
        bytes_read=reads,
        bytes_written=written,
        peak_memory=IMPORTS + _working_memory(edit, checkpoints),
        free_memory=psutil.virtual_memory().available,
        free_disk=psutil.disk_usage(str(_existing(output))).free,
        seconds=reads / rate + 2 * written / rate,  # writing durably is about half as fast as reading
    )


def _working_memory(edit: Edit, checkpoints: Mapping[str, Checkpoint]) -> int:
    """Blocks in flight, each up to four times its stored size while it is computed; rows may exceed a block.

    The authors' arithmetic takes norms of whole tensors, three of them and a difference at a time.
    """
    specs = [spec for checkpoint in checkpoints.values() for spec in checkpoint.tensors.values()]
    block = max(COPY_BYTES, *(spec.row_bytes for spec in specs))
    whole = any(part.options.get("arithmetic") == "authors" for part in edit.provenance)
    largest = max((s.numel for n, s in checkpoints[edit.start].tensors.items() if "layers" in n), default=0)
    return block * (READ_AHEAD + 2) * 4 * max(1, len(edit.sources)) + (4 * 4 * largest if whole else 0)


def _observed_rate(sources: Mapping[str, Source], seconds: float) -> float:
    """Reading speed seen while the methods decided; trusted only if they read enough to tell."""
    read = sum(source.reader.bytes_read for source in sources.values() if isinstance(source.reader, CheckpointReader))
    return read / seconds if read > 256 << 20 and seconds > 0 else ASSUMED_RATE


def _all_notes(sources: Mapping[str, Source]) -> tuple[str, ...]:
    return tuple(f"{name}: {note}" for name, source in sources.items() for note in _notes(source))


def _donor_notes(job: Job) -> tuple[str, ...]:
    """What is not in the output because the model that tokenizer and chat template come from cannot give it."""
    donor = job.checkpoints[job.donor]
    notes = []
    if omitted := left_out(donor):
        notes.append(f"{job.donor}: not copied, because it is code, a pickle, or nothing known: {', '.join(omitted)}")
    others = [name for name, each in job.checkpoints.items() if name != job.donor and has_chat_template(each)]
    if others and not has_chat_template(donor):
        notes.append(
            f"{job.donor}: has no chat template, so the output, whose tokenizer is taken from there, has none either;"
            f" there is one in {', '.join(others)}: copy it into {job.donor}, or take tokenizer and template from there"
            f" (`tokenizer_from: {others[0]}` under `output`)"
        )
    return tuple(notes)


def _notes(source: Source) -> tuple[str, ...]:
    unknown = source.architecture.unknown
    listed = ", ".join(unknown[:3]) + (" …" if len(unknown) > 3 else "")
    return (
        *source.architecture.notes,
        *([f"{len(unknown)} tensors with no known role: {listed}"] if unknown else []),
    )


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
