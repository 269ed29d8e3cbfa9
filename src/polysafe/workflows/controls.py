"""The edits that a method's choice has to beat, as edit files: no checkpoint is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from polysafe.checkpoint.writer import output_error
from polysafe.edits.edit import Edit
from polysafe.engine.plan import make_plan
from polysafe.engine.write import with_digests
from polysafe.errors import RecipeError
from polysafe.probe.kept import Measurements
from polysafe.recipe.recipe import Recipe


@runtime_checkable
class Controlled(Protocol):
    """A method that knows its controls."""

    def settled(self, edit: Edit) -> Self:
        """The same options with what was chosen in an edit of this method."""

    def controls(self, draws: int = 3) -> tuple[Any, ...]:
        """What the choice has to beat."""


def write_controls(recipe: Recipe, output: Path, draws: int = 3) -> Iterator[tuple[str, Path]]:
    """Decides the recipe's edit, then every control of it with the same settings, and saves them.

    The model is measured once for all of them; edited models, where an edit of several layers builds on its own
    first layers, every time.

    Args:
        recipe: A recipe with one edit, of a method that has controls.
        output: Folder; every edit gets a folder of its name in it.
        draws: Draws of each random control.

    Yields:
        Label and folder of every edit, the recipe's own first.

    Raises:
        RecipeError: The recipe has several edits, or its method has no controls.
        OutputError: The folder cannot be written.
        PolysafeError: As for `make_plan`.
    """
    method, measured = controlled(recipe), Measurements()
    with measured:
        edit = _decided(recipe)
    yield _save(edit, recipe.edits[0].label, output)
    for control in method.settled(edit).controls(draws):
        with measured:
            decided = _decided(recipe.model_copy(update={"edits": (control,)}))
        yield _save(decided, control.label, output)


def controls_of(recipe: Recipe) -> Controlled | None:
    """The method of a recipe with one edit, if it has controls."""
    method, *others = recipe.edits
    return method if not others and isinstance(method, Controlled) else None


def controlled(recipe: Recipe) -> Controlled:
    """The same where there has to be one.

    Raises:
        RecipeError: The recipe has several edits, or its method has no controls.
    """
    method = controls_of(recipe)
    if method is None:
        raise RecipeError(
            "controls belong to one edit whose method chooses blocks, units or heads",
            where=", ".join(edit.label for edit in recipe.edits),
            remedy="use one `layer_swap`, `band_swap`, `behaviour_swap`, `sparse_edit` or `head_steering`",
        )
    return method


def _decided(recipe: Recipe) -> Edit:
    """The edit with the hashes of the models that it is for: what is saved is applied to those only."""
    plan = make_plan(recipe)
    return with_digests(plan.edit, plan.job.checkpoints)


def _save(edit: Edit, label: str, output: Path) -> tuple[str, Path]:
    folder = output / label
    try:
        edit.save(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    return label, folder
