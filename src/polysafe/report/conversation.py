"""A conversation with models as one page without scripts; what they said is closed until it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polysafe.report.html import environment


def conversation_page(
    models: Mapping[str, str], turns: Sequence[Mapping[str, Any]], settings: Mapping[str, object]
) -> str:
    """The page as text.

    Args:
        models: Name of a model in the conversation -> what it is called.
        turns: `prompt`, `begins` and `answers` (name -> text) of each.
        settings: How answers were drawn.
    """
    page = {"models": models, "turns": turns, "settings": settings}
    return environment().get_template("conversation.html.j2").render(page)
