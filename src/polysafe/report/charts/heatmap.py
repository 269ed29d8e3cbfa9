"""Heat maps: tables whose cells are coloured by their number, so that the picture is its own table."""

from __future__ import annotations

from dataclasses import dataclass

from polysafe.report.tables import Table


@dataclass(frozen=True)
class HeatCell:
    """One cell.

    Attributes:
        text: Its number.
        note: What stands under it, as its number of items.
        heat: How much of the colour it takes, 0 … 1.
        tone: `bad` or `good`: which colour.
        title: Everything that is known of it, for a pointer that rests on it.
    """

    text: str
    note: str
    heat: float
    tone: str = "bad"
    title: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A coloured table.

    Attributes:
        heading: Its title.
        caption: What the colours and numbers are.
        corner: What the first column holds.
        columns: Headings of the others.
        rows: Name and cells of each row; a cell is None where nothing was measured.
        table: All the numbers with their intervals, or None where the cells hold them all.
    """

    heading: str
    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell | None, ...]], ...]
    table: Table | None = None
