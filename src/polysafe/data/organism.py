"""What a model organism brings along: prompts, anchors, tasks, a judge and a validation of its own.

The rest of polysafe knows organisms by this protocol alone. The package that has one is loaded when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from polysafe.data.anchors import Anchors
from polysafe.data.openings import Openings
from polysafe.data.prompts import PromptSet
from polysafe.data.sets import load_set
from polysafe.data.trials import Trials

if TYPE_CHECKING:
    from polysafe.checkpoint.source import Checkpoint
    from polysafe.evaluate.journal import Store
    from polysafe.evaluate.opening import OpenedModel
    from polysafe.judge.verdict import Judge
    from polysafe.methods.validation import Validator

ORGANISM = "organism"
"""What a recipe and the command line call whatever the organism of a model brings along."""

CONTRAST = f"{ORGANISM}.contrast"
"""Of its harmless requests those that look harmful."""

ANSWER_TOKENS = 8
"""Most tokens of an answer of its models."""

_OWN = "polysafe.organism.own"

Split = Literal["train", "validation", "test"]


class Exam(Protocol):
    """Measures what a model can do, after its run."""

    def measure(self, opened: OpenedModel, run: Path, store: Store) -> object:
        """Asks the model and writes what it can do into the folder of the run."""


class Organism(Protocol):
    """A world in which the truth is known, and the models that were trained in it."""

    def prompts(self, split: Split = "test") -> PromptSet:
        """Its requests, harmful and harmless, in all of its languages."""

    def anchors(self, languages: Sequence[str]) -> Anchors:
        """Parallel prompts of its training split."""

    def openings(self, language: str) -> Openings:
        """How refusals and answers begin in one of its languages."""

    def trials(self, language: str, *, count: int, shots: int, seed: int) -> tuple[Trials, ...]:
        """Prompts of its in-context tasks."""

    def judge(self) -> Judge:
        """The exact judge of its answers."""

    def validator(self) -> Validator:
        """What asks a model its validation split."""

    def exam(self, opened: OpenedModel, limit: int | None = None) -> Exam:
        """What measures the abilities of a model, by at most `limit` questions of each in every language.

        Raises:
            RecipeError: It cannot be asked of the model.
        """


def organism_of(checkpoint: Checkpoint) -> Organism:
    """The organism that a checkpoint is a member of.

    Raises:
        DataError: It is a member of none.
    """
    found: Organism = _own().organism_of(checkpoint)
    return found


def packaged_organism() -> Organism:
    """The organism that comes with polysafe.

    Raises:
        CheckpointError: The package was installed without it.
    """
    found: Organism = _own().packaged_organism()
    return found


def is_member(folder: Path) -> bool:
    """Whether a folder is a member of an organism, by the record beside it."""
    return bool(_own().is_member(folder))


def packaged_weights() -> frozenset[str]:
    """Hashes of the packaged organism's weight files, and identities of its models; none where it was left out."""
    found: frozenset[str] = _own().packaged_weights()
    return found


def load_prompts(
    name: str | Path,
    organism: Callable[[], Organism],
    *,
    split: Split = "test",
    languages: Collection[str] | None = None,
    limit: int | None = None,
    **options: Any,
) -> PromptSet:
    """A set of prompts as `load_set` reads it, or by the name `organism` that of an organism.

    Args:
        name: As for `load_set`; `organism`, or `organism.contrast`.
        organism: Gives the organism, if it is asked for.
        split: Which of an organism's requests.
        languages: As for `load_set`.
        limit: As for `load_set`.
        options: What else `load_set` takes.

    Raises:
        DataError: As for `load_set`; or there is no organism.
    """
    if name == ORGANISM:
        return organism().prompts(split).select(languages, limit)
    if name == CONTRAST:
        found = organism().prompts(split)
        near = tuple(prompt for prompt in found.prompts if prompt.category == "contrast")
        return replace(found, prompts=near).select(languages, limit)
    return load_set(name, languages=languages, limit=limit, **options)


def _own() -> Any:
    return import_module(_OWN)
