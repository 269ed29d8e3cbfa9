"""Text from outside, made inert for Markdown.

Escaping single characters does not do: readers find addresses, mentions, formulas and emoji codes in text that was
escaped correctly, after the escapes are gone. Inside a code span nothing has a meaning in any of them. So everything
that polysafe did not write itself stands in a code span or a fenced block, whose fence is longer than any in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from polysafe.text import readable
from polysafe.text.readable import NOTHING, clip, visible

MAX_INLINE = 200
"""Characters of a name or a note that the card shows."""

_RUNS = re.compile("`+")


class Prose(str):
    """Markdown of polysafe's own: it passes through `inline` as it is."""

    __slots__ = ()


def inline(value: object, *, limit: int = MAX_INLINE, cell: bool = False) -> Prose:
    """A value for the middle of a paragraph: numbers and own Markdown as they are, any other text as a code span.

    Args:
        value: What to show.
        limit: Characters that are shown of a text; what is cut is said.
        cell: Whether it stands in a table, where a vertical bar ends a cell even inside a code span.
    """
    if isinstance(value, Prose):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Prose(value)
    text = one_line(str(value), limit)
    if not text.strip():
        return Prose(NOTHING)
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[0] in "` " or text[-1] in "` \\" else ""
    span = f"{fence}{pad}{text}{pad}{fence}"
    return Prose(span.replace("|", "\\|") if cell else span)


def one_line(text: str, limit: int = MAX_INLINE) -> str:
    """Text on one line, bounded, with everything that acts on a display made visible."""
    return clip(readable.one_line(text), limit)


def block(text: str, language: str = "") -> Prose:
    """A fenced block whose content cannot end it.

    Args:
        text: The content; its lines stay lines.
        language: Info string, of polysafe's own.
    """
    content = visible(text).rstrip("\n")
    fence = "`" * max(3, _longest_run(content) + 1)
    return Prose(f"{fence}{language}\n{content}\n{fence}")


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> Prose:
    """A table.

    Args:
        header: Headings, of polysafe's own.
        rows: Cells.
        right: Columns that are aligned to the right.
    """
    numbers = set(right)
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    lines = [header, rule, *([inline(cell, cell=True) for cell in row] for row in rows)]
    return Prose("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def listed(values: Iterable[object]) -> Prose:
    """Values in a row, separated by commas."""
    return Prose(", ".join(inline(value) for value in values) or NOTHING)


def _longest_run(text: str) -> int:
    return max((len(run) for run in _RUNS.findall(text)), default=0)
