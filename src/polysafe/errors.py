"""Every error that polysafe raises on purpose.

The set is closed: a caller that catches `PolysafeError` has caught everything that polysafe refuses, and the class
says which kind of thing is wrong. Each message names the problem, the place and the remedy, in that order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 4000
"""Most characters of a problem: names in files of other people may have millions."""


class PolysafeError(Exception):
    """Something that polysafe refuses to do.

    Args:
        problem: What is wrong, as a statement of fact; of a very long one its beginning and its end are kept.
        where: The file, tensor, recipe line or host at which it was found.
        remedy: What the reader can do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, *, where: object | None = None, remedy: str | None = None) -> None:
        if len(problem) > LONGEST:
            problem = f"{problem[: LONGEST // 2]} … {problem[-LONGEST // 2 :]}"
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = "" if self.where is None else f"{self.where}: "
        advice = "" if self.remedy is None else f"\n  {self.remedy}"
        return f"{place}{self.problem}{advice}"


class RecipeError(PolysafeError):
    """A recipe, or an option of a method, does not say something that can be done."""


class CheckpointError(PolysafeError):
    """A file of a checkpoint is not what it has to be."""


class ArchitectureError(PolysafeError):
    """The roles of a checkpoint's tensors cannot be told, or its config contradicts them."""


class MismatchError(PolysafeError):
    """Checkpoints that were named together do not fit together."""


class EditError(PolysafeError):
    """An edit, or a file that should hold one, cannot be applied."""


class OutputError(PolysafeError):
    """The place for the output cannot be used."""


class ResourceError(PolysafeError):
    """The work does not fit this machine's memory or disk."""


class DataError(PolysafeError):
    """A data set, a model's answers or a results file are not what they have to be."""


class VerificationError(PolysafeError):
    """A check of finished work said no."""

    exit_code = 1


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A question that proposes the nearest of `known`, if one is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None
