"""Cells and rows of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence


def table_row(head: str, cells: Sequence[str]) -> str:
    """One row."""
    return f"| {' | '.join((head, *cells))} |"


def percent(value: float) -> str:
    """A share as whole percent."""
    return f"{100 * value:.0f}"
