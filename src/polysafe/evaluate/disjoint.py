"""Nothing is reported on prompts that an edit was fitted to: looked for before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.organism import load_prompts, organism_of
from polysafe.data.prompts import PromptSet
from polysafe.data.sets.registry import require_disjoint
from polysafe.errors import DataError
from polysafe.methods.base import Method


def check_disjoint(
    edits: Sequence[Method],
    names: Sequence[str | Path],
    *,
    start: Path,
    data: Path | None = None,
    limit: int | None = None,
) -> Iterator[str]:
    """Refuses sets that hold prompts which an edit is fitted to, in any language of the set.

    Args:
        edits: The edits of a recipe.
        names: Sets that are reported on.
        start: Folder of the model that the edits start from.
        data: Folder with a folder per set.
        limit: Number of parallel rows that are reported on.

    Yields:
        What was found where an edit has `allow_overlap`.

    Raises:
        DataError: A prompt is on both sides; names some.
    """
    fitted = [(edit, prompts) for edit in edits for prompts in edit.fitted(data)]
    if not fitted:
        return
    for name in dict.fromkeys(names):
        report = _reported(name, start, data, limit)
        for edit, prompts in fitted:
            try:
                require_disjoint(prompts, report)
            except DataError as error:
                if not getattr(edit, "allow_overlap", False):
                    raise DataError(
                        f"{edit.label} would be reported on what it is fitted to: {error.problem}",
                        remedy=f"{error.remedy}; or set `allow_overlap: true` and do not report the results",
                    ) from error
                yield f"{edit.label} is reported on what it is fitted to: {error.problem}"


def check_validation(
    edits: Sequence[Method],
    chosen: Sequence[PromptSet],
    reported: Sequence[str | Path],
    *,
    start: Path,
    data: Path | None = None,
) -> None:
    """Refuses to choose by prompts that an edit is fitted to, or that are reported on.

    Args:
        edits: The edits of a recipe.
        chosen: Sets of prompts that choices are made by.
        reported: Sets that are reported on.
        start: Folder of the model that the edits start from.
        data: Folder with a folder per set.

    Raises:
        DataError: A prompt is on both sides; names some.
    """
    for edit in edits:
        for fitted in edit.fitted(data):
            for one in chosen:
                _apart(fitted, one, f"validation would choose by what {edit.label} is fitted to")
    for name in dict.fromkeys(reported):
        report = _reported(name, start, data, None)
        for one in chosen:
            _apart(one, report, "results would be reported on what was chosen by")


def _apart(first: PromptSet, second: PromptSet, what: str) -> None:
    try:
        require_disjoint(first, second)
    except DataError as error:
        raise DataError(
            f"{what}: {error.problem}", remedy="name another set, or another split, for example multijail.validation"
        ) from error


def _reported(name: str | Path, start: Path, data: Path | None, limit: int | None) -> PromptSet:
    """A set in all its languages: whoever was fitted to a prompt in one of them has seen it."""
    return load_prompts(name, lambda: organism_of(open_checkpoint(start)), data=data, limit=limit)
