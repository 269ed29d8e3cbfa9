"""A checkpoint that is open to be read: its files, the roles of its tensors, and their reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.reader import CheckpointReader, TensorReader
from polysafe.checkpoint.roles import Architecture, classify
from polysafe.checkpoint.source import Checkpoint, open_checkpoint


@dataclass(frozen=True)
class Source:
    """One model of a recipe, opened.

    Attributes:
        name: What the recipe calls it.
        checkpoint: Its files.
        architecture: The roles of its tensors.
        reader: Where its tensors are read from; behind an earlier edit, the edited tensors.
    """

    name: str
    checkpoint: Checkpoint
    architecture: Architecture
    reader: TensorReader


Sources = Mapping[str, Source]


@contextmanager
def open_source(folder: Path, name: str | None = None) -> Iterator[Source]:
    """A folder as a source, for as long as the context lasts.

    Args:
        folder: The checkpoint folder.
        name: What it is called; by default as the folder.

    Raises:
        CheckpointError: The folder holds no sound checkpoint.
        ArchitectureError: Its tensors cannot be told apart.
    """
    checkpoint = open_checkpoint(folder)
    with CheckpointReader(checkpoint) as reader:
        yield Source(name or folder.name or str(folder), checkpoint, classify(checkpoint), reader)
