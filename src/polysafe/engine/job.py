"""A job: what is asked for, with every input opened and the output place checked, before anything is decided."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from polysafe._version import __version__
from polysafe.checkpoint.lora import open_adapter, open_reader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.output import Workspace, check_target
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.reader import TensorReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.engine.sources import locate
from polysafe.engine.support import job_parts
from polysafe.errors import PolysafeError
from polysafe.files.atomic import json_bytes
from polysafe.progress import Progress, tell
from polysafe.recipe.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        checkpoints: The inputs by source name.
        target: The folder that will be written.
        donor: The source that tokenizer and chat template come from.
        shard_size: Largest size of an output file in bytes.
        parts: Gives what tells it apart from other jobs on the same inputs.
    """

    checkpoints: Mapping[str, Checkpoint]
    target: Path
    donor: str
    shard_size: int
    parts: Callable[[], tuple[str, ...]]

    def __post_init__(self) -> None:
        check_target(self.target, [folder for checkpoint in self.checkpoints.values() for folder in checkpoint.folders])

    @cached_property
    def identity(self) -> str:
        """Tells two jobs apart without reading weights: their parts, and name, size and times of every input file."""
        files = [
            [name, *header.stamp.key]
            for name, checkpoint in sorted(self.checkpoints.items())
            for header in checkpoint.headers
        ]
        return hashlib.sha256(json_bytes([[__version__, *self.parts()], files])).hexdigest()

    @property
    def space(self) -> Workspace:
        """Where its output comes into being."""
        return Workspace(self.target)

    @contextmanager
    def readers(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[dict[str, TensorReader]]:
        """The inputs, open to be read for as long as the context lasts; told how many bytes were read."""
        with ExitStack() as stack:
            yield {
                name: stack.enter_context(open_reader(checkpoint, advance))
                for name, checkpoint in self.checkpoints.items()
            }

    @contextmanager
    def sources(self, advance: Callable[[int], None] = lambda _: None) -> Iterator[dict[str, Source]]:
        """The same with the roles of their tensors.

        Raises:
            ArchitectureError: The tensors of a source cannot be edited, or told apart.
        """
        for checkpoint in self.checkpoints.values():
            check_editable(checkpoint)
        with self.readers(advance) as readers:
            yield {
                name: Source(name, self.checkpoints[name], classify(self.checkpoints[name]), reader)
                for name, reader in readers.items()
            }


@dataclass(frozen=True)
class RecipeJob(Job):
    """What a recipe asks for.

    Attributes:
        recipe: The recipe, with the folder of data that is meant.
    """

    recipe: Recipe


def resolve(
    recipe: Recipe, progress: Progress = tell, *, data: Path | None = None, names: Collection[str] = ()
) -> RecipeJob:
    """Opens every source that a recipe uses; GGUF files are made into folders of the user's cache.

    Args:
        recipe: The recipe.
        progress: Told how far the making of folders is.
        data: Folder with a folder per set, instead of the recipe's; what is written does not tell.
        names: Further sources to open.

    Raises:
        PolysafeError: A source cannot be opened.
        OutputError: The output would touch an input or foreign files.
    """
    meant, donor = recipe.with_data(data), recipe.output.tokenizer_from or recipe.edits[0].donor()
    used = dict.fromkeys((*(name for method in recipe.edits for name in method.uses), donor, *names))
    checkpoints = {name: open_named(recipe, name, progress) for name in used}

    def parts() -> tuple[str, ...]:
        return (meant.to_yaml(), *job_parts(meant, checkpoints))

    return RecipeJob(checkpoints, recipe.output.path, donor, recipe.output.shard_size, parts, meant)


def open_named(recipe: Recipe, name: str, progress: Progress = tell) -> Checkpoint:
    """What a recipe names, full or as an adapter of another source.

    Raises:
        PolysafeError: It cannot be had or opened.
    """
    reference = recipe.sources[name]
    base = None if reference.adapter_of is None else open_named(recipe, reference.adapter_of, progress)
    try:
        folder, origin = locate(reference, progress)
        return open_checkpoint(folder, origin=origin) if base is None else open_adapter(folder, base, origin=origin)
    except PolysafeError as error:
        error.problem += f" (source {name!r} of the recipe)"
        raise
