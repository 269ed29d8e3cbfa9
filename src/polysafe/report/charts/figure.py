"""What the parts of the page are made of."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from polysafe.report.tables import Table


@dataclass(frozen=True)
class Figure:
    """A chart with its caption and its numbers.

    Attributes:
        heading: Its title.
        caption: What is drawn, and how to read it.
        chart: The drawing; its text alternative is in it.
        table: The numbers that are drawn.
        key: Names of what is numbered in the drawing, from 1.
    """

    heading: str
    caption: str
    chart: Markup
    table: Table
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One number of the first screen."""

    name: str
    value: str
    note: str
