"""What `plan` and `run` share: recipes of several files, one failure among them, and one document of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer

from polysafe.cli.console import print_error
from polysafe.errors import PolysafeError
from polysafe.recipe.each import load_recipes
from polysafe.recipe.recipe import Recipe

Made = TypeVar("Made")
Asked = Sequence[tuple[Path, Recipe]]
"""Recipes with the file that each is from."""


def load_all(files: Iterable[Path]) -> Asked:
    """The recipes of all files.

    Raises:
        RecipeError: As for `load_recipes`.
    """
    return [(file, recipe) for file in files for recipe in load_recipes(file)]


@dataclass(frozen=True)
class Outcomes(Generic[Made]):
    """What came of recipes.

    Attributes:
        made: What was made, in order.
        content: The same as plain data, errors included.
        failed: What went wrong.
    """

    made: Sequence[Made]
    content: Sequence[dict[str, Any]]
    failed: Sequence[PolysafeError]

    @property
    def document(self) -> object:
        """One object for one recipe, a list for several."""
        return self.content[0] if len(self.content) == 1 else self.content

    def end(self) -> None:
        """Ends the command where something went wrong."""
        if self.failed:
            raise typer.Exit(max(error.exit_code for error in self.failed))


def collected(
    asked: Asked,
    outcomes: Iterator[Made | PolysafeError],
    content: Callable[[Made], dict[str, Any]],
    show: Callable[[Made, Path], None],
) -> Outcomes[Made]:
    """Shows every outcome as it comes; an error is told by the name of the output that it was to be.

    Raises:
        PolysafeError: There is one recipe, and it failed.
    """
    made, contents, failed = [], [], []
    for (file, recipe), outcome in zip(asked, outcomes, strict=True):
        if not isinstance(outcome, PolysafeError):
            show(outcome, file)
            made.append(outcome)
            contents.append(content(outcome))
            continue
        if len(asked) == 1:
            raise outcome
        place = recipe.output.path
        print_error(type(outcome)(f"not made: {outcome}", where=place))
        failed.append(outcome)
        contents.append({"output": str(place), "error": str(outcome)})
    return Outcomes(made, contents, failed)
