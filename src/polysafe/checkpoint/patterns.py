"""Regular expressions of files: they are matched in the process of `polysafe.confined`, and nowhere else.

An expression can take longer than any file is worth, and nothing tells it from a harmless one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def first_matches(asked: Mapping[str, Any]) -> list[int | None] | str:
    """For every name the place of the first expression that PEFT would apply to it, None where there is none.

    Args:
        asked: `patterns` and `names`.

    Returns:
        The places, or why an expression is none.
    """
    names: Sequence[str] = asked["names"]
    try:
        compiled = [re.compile(rf"(.*\.)?({pattern})$") for pattern in asked["patterns"]]
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return [next((place for place, each in enumerate(compiled) if each.match(name)), None) for name in names]
