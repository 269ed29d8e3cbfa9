"""Paths in recipes: relative ones are those of the recipe's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, ValidationInfo

from polysafe.recipe_errors import problem


def _absolute(value: object, info: ValidationInfo) -> Path:
    text = os.fspath(value) if isinstance(value, (str, Path)) else ""
    if not text or "\0" in text:
        raise problem(f"a path is wanted, not {value!r}")
    folder = (info.context or {}).get("folder", "")
    # Not resolve(): a symbolic link is the user's name for the place, and the engine compares the real ones.
    return Path(os.path.abspath(Path(folder) / Path(text).expanduser()))


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
"""A path of a recipe, made absolute with the folder in the validation context."""
