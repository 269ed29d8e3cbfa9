"""The coverage table of `docs/architectures.md`, from the list of families alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.architectures.cells import COLUMNS
from tests.architectures.families import FAMILIES, Family

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
BEGIN, END = "<!-- begin: made by python -m tests.architectures -->", "<!-- end -->"


def page(text: str) -> str:
    """The page with the table in place of what stands between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """A row a family, and below what the letters say."""
    columns = {reason: column for column, reason in reversed(list(_reasons()))}
    reasons = {reason: _letter(place) for place, reason in enumerate(reversed(columns))}
    rows = [
        f"| model | `model_type` | {' | '.join(COLUMNS)} |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
        *(
            f"| {family.title} | `{family.model_type}` | "
            + " | ".join(_cell(family, column, reasons) for column in COLUMNS)
            + " |"
            for family in FAMILIES
        ),
    ]
    listed = [f"- **{letter}**, {columns[reason]}: “… {reason}”" for reason, letter in reasons.items()]
    return "\n".join([*rows, "", *listed, ""])


def _cell(family: Family, column: str, letters: dict[str, str]) -> str:
    if column in family.refused:
        return f"refused {letters[family.refused[column]]}"
    said = " ".join(letters[note] for note in family.notes.get(column, ()))
    return f"works {said}".strip()


def _reasons() -> Iterator[tuple[str, str]]:
    """(column, what is said in it), in the order of the columns."""
    for column in COLUMNS:
        for family in FAMILIES:
            said = [family.refused[column]] if column in family.refused else family.notes.get(column, ())
            yield from ((column, reason) for reason in said)


def _letter(place: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[place]
