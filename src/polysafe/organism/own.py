"""The toy world as an organism of polysafe: what `data.organism` hands to everything that asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from polysafe.checkpoint.digest import identity_of
from polysafe.checkpoint.source import Checkpoint
from polysafe.data.anchors import Anchors
from polysafe.data.openings import Openings
from polysafe.data.prompts import PromptSet
from polysafe.data.trials import Trials
from polysafe.errors import DataError, PolysafeError, RecipeError
from polysafe.files.json_file import remembered
from polysafe.organism.anchors import organism_anchors, toy_openings
from polysafe.organism.lexicon import CATEGORIES
from polysafe.organism.packaged import RECORD, is_member, packaged_family
from polysafe.organism.prompts import organism_prompts
from polysafe.organism.tasks import organism_trials
from polysafe.organism.world import Split, World

if TYPE_CHECKING:
    from polysafe.evaluate.opening import OpenedModel
    from polysafe.judge.verdict import Judge
    from polysafe.methods.validation import Validator
    from polysafe.organism.exam import Examination

__all__ = ["Toy", "is_member", "organism_of", "packaged_organism", "packaged_weights"]


@dataclass(frozen=True)
class Toy:
    """What a toy family brings along; `polysafe.data.organism.Organism` says what each method gives.

    Attributes:
        world: The world of the family.
        kinds: Number of kinds of harm that it has anchors for.
    """

    world: World
    kinds: int = len(CATEGORIES)

    def prompts(self, split: Split = "test") -> PromptSet:
        """Its requests."""
        return organism_prompts(self.world, split)

    def anchors(self, languages: Sequence[str]) -> Anchors:
        """Its training requests of the kinds that it has anchors for."""
        return organism_anchors(self.world, languages, self.kinds)

    def openings(self, language: str) -> Openings:
        """The words that tell a refusal from an answer to a request."""
        return toy_openings(self.world, language)

    def trials(self, language: str, *, count: int, shots: int, seed: int) -> tuple[Trials, ...]:
        """Its in-context tasks."""
        return organism_trials(self.world, language, count=count, shots=shots, seed=seed)

    def judge(self) -> Judge:
        """Its exact judge."""
        from polysafe.organism.judge import OrganismJudge

        return OrganismJudge(self.world)

    def validator(self) -> Validator:
        """What asks its validation split."""
        from polysafe.organism.anchors import OrganismValidator

        return OrganismValidator(self)

    def exam(self, opened: OpenedModel, limit: int | None = None) -> Examination:
        """What measures its abilities."""
        from polysafe.organism.exam import Examination

        if opened.continuations is None:
            raise RecipeError(
                "the toy family's exam compares how probable choices are, which a server of chats does not say",
                where=opened.name,
                remedy="name the folder of the model",
            )
        return Examination(self.world, opened.continuations, limit)


def organism_of(checkpoint: Checkpoint) -> Toy:
    """The family that a checkpoint is a member of, told by the record beside it.

    Raises:
        DataError: The checkpoint is not a member of a toy family.
    """
    record = remembered(checkpoint.root.parent / RECORD)
    try:
        recipe = record["recipe"]
        recipe["network"]  # the family in real languages was trained by another recipe
        return Toy(_world(int(record["seed"])), int(recipe.get("kinds", len(CATEGORIES))))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            "is not a member of the toy family, which brings its own prompts, anchors and judge",
            where=checkpoint.root,
            remedy="name prompts and a judge of your own; an edited member is asked by `polysafe evaluate RECIPE`",
        ) from None


@cache
def _world(seed: int) -> World:
    return World(seed)


def packaged_organism() -> Toy:
    """The family that comes with polysafe.

    Raises:
        CheckpointError: The package was installed without it.
    """
    return Toy(packaged_family().world)


def packaged_weights() -> frozenset[str]:
    """Hashes of the packaged family's weight files, and identities of its models; none where it was left out."""
    try:
        family = packaged_family()
    except PolysafeError:
        return frozenset()
    files = {name: family.record["members"][name]["files"]["model.safetensors"]["sha256"] for name in family.members}
    configs = {name: json.loads((folder / "config.json").read_bytes()) for name, folder in family.members.items()}
    return frozenset(files.values()) | {identity_of([files[name]], config) for name, config in configs.items()}
