"""The control of methods that say for every block whose it is: the same choices, at random blocks.

A rule that reads weights, or a band, has to beat it: as much of either expert goes into the model, only not where the
rule puts it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import Field

from polysafe.edits.edit import Edit
from polysafe.methods.base import Method, control_label

Block = TypeVar("Block", bound=Hashable)
Choice = TypeVar("Choice")


class BlockMethod(Method, ABC):
    """A method that chooses an expert for every block, with its control."""

    control: Literal["random"] | None = None
    """A control instead of the method: the same choices, at random blocks of the same kind."""
    control_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random blocks."""

    @property
    @abstractmethod
    def rule_label(self) -> str:
        """Name of the method in results, where it is no control."""

    @property
    def label(self) -> str:
        """`rule_label`, or that of its control."""
        if self.control is None:
            return self.rule_label
        return control_label(self.rule_label, self.control, self.control_seed)

    def settled(self, edit: Edit) -> Self:  # noqa: ARG002 (other methods read it)
        """The same options: nothing is chosen on prompts."""
        return self

    def controls(self, draws: int = 3) -> tuple[Self, ...]:
        """What the choice of blocks has to beat.

        Args:
            draws: Draws of random blocks.
        """
        return tuple(self.model_copy(update={"control": "random", "control_seed": seed}) for seed in range(draws))

    def placed(self, choices: Mapping[Block, Choice], kind: Callable[[Block], Hashable]) -> dict[Block, Choice]:
        """The choices where they belong; for a control, exchanged at random between blocks of one kind.

        Args:
            choices: Block -> its choice.
            kind: What blocks must have in common to be exchanged.
        """
        if self.control is None:
            return dict(choices)
        generator, found = np.random.default_rng(self.control_seed), dict(choices)
        for each in dict.fromkeys(map(kind, choices)):
            blocks = [block for block in choices if kind(block) == each]
            order = generator.permutation(len(blocks))
            found.update((block, choices[blocks[place]]) for block, place in zip(blocks, order, strict=True))
        return found
