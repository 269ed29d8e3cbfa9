"""Paths in recipes: relative ones are those of the recipe's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, SerializationInfo, SerializerFunctionWrapHandler, ValidationInfo, WrapSerializer

from polysafe.recipe_errors import problem


def _absolute(value: object, info: ValidationInfo) -> Path:
    text = os.fspath(value) if isinstance(value, (str, Path)) else ""
    if not text or "\0" in text:
        raise problem(f"a path is wanted, not {value!r}")
    folder = (info.context or {}).get("folder", "")
    # Not resolve(): a symbolic link is the user's name for the place, and the engine compares the real ones.
    return Path(os.path.abspath(Path(folder) / Path(text).expanduser()))


def _written(path: Path, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> object:
    return path.name if (info.context or {}).get("paths") == "names" else handler(path)


AbsolutePath = Annotated[Path, BeforeValidator(_absolute), WrapSerializer(_written)]
"""A path of a recipe, made absolute with the folder in the validation context.

Written with `paths: names` in the context, only its last part is: what leaves the machine does not say where it lay.
"""
