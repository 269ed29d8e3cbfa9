"""What the loaders of questions share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from polysafe.data.questions import LETTERS, Question
from polysafe.data.tables import Table, as_text
from polysafe.errors import DataError

PROMPTS = "prompts"
"""Column by which a file in SEA-HELM's shape is told: the texts are in its first and only entry."""


def in_prompt(table: Table, name: str) -> tuple[str, ...]:
    """Texts of a field of SEA-HELM's shape.

    Raises:
        DataError: A row lacks it.
    """
    return tuple(as_text(_first(cell, table, n).get(name)) for n, cell in enumerate(table.cells(PROMPTS), 1))


def in_metadata(table: Table, name: str) -> tuple[str, ...]:
    """Texts of a field of SEA-HELM's metadata; empty where a row lacks it."""
    return tuple(as_text(cell.get(name)) if isinstance(cell, dict) else "" for cell in table.cells("metadata"))


def letters(table: Table, *names: str) -> tuple[int, ...]:
    """Indices of choices from a column of letters.

    Raises:
        DataError: A cell is none of A to D.
    """
    return _indices(table, table.texts(*names), LETTERS)


def ordinals(table: Table, name: str) -> tuple[int, ...]:
    """Indices of choices from a column of `1` to `4`, as texts or numbers.

    Raises:
        DataError: A cell is none of them.
    """
    return _indices(table, table.texts(name), "1234")


def complete(table: Table, questions: Iterable[Question]) -> Iterator[Question]:
    """Passes questions on and refuses one without a text: nobody could answer it, in one language alone.

    Raises:
        DataError: The question, a choice, the context or the name is empty; names the row.
    """
    for number, each in enumerate(questions, 1):
        if not all(text.strip() for text in (each.parallel, each.question, each.context or "-", *each.choices)):
            raise DataError(f"row {number} has an empty text", where=table.path, remedy="get the file again")
        yield each


def _first(cell: Any, table: Table, number: int) -> Mapping[str, Any]:
    if not isinstance(cell, list) or len(cell) != 1 or not isinstance(cell[0], dict):
        raise DataError(f"row {number}: `{PROMPTS}` is no list of one object", where=table.path)
    return cell[0]


def _indices(table: Table, cells: Sequence[str], signs: str) -> tuple[int, ...]:
    for number, cell in enumerate(cells, 1):
        if len(cell) != 1 or cell not in signs:
            raise DataError(f"row {number}: the right answer is {cell!r:.20}, none of {signs}", where=table.path)
    return tuple(map(signs.index, cells))
