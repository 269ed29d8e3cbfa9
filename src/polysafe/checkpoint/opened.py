"""A checkpoint that is open to be read: its files, the roles of its tensors, and their reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polysafe.checkpoint.reader import TensorReader
from polysafe.checkpoint.roles import Architecture
from polysafe.checkpoint.source import Checkpoint


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
