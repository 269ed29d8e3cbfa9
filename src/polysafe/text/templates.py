"""Templates of pages and cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(folder: Path, *, autoescape: bool, **options: Any) -> Environment:
    """The templates in a folder. What one of them names and nobody gives is an error.

    Args:
        folder: Where they are.
        autoescape: Whether values are text in HTML.
        options: What else jinja2 takes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,  # noqa: S701 (a card is no HTML and escapes by `finalize`)
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
