"""Paths in recipes: relative ones are those of the recipe's folder; and values without any place of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo

from polysafe.files.recipe_errors import problem

_SERVER = re.compile(r"(https?://)[^\s/]+")
_ELSEWHERE = r"\1host.invalid"


def _absolute(value: object, info: ValidationInfo) -> Path:
    text = os.fspath(value) if isinstance(value, (str, Path)) else ""
    if not text or "\0" in text or not _can_be_named(text):
        raise problem(f"a path is wanted, not {value!r}")
    folder = (info.context or {}).get("folder", "")
    # Not resolve(): a symbolic link is the user's name for the place, and the engine compares the real ones.
    return Path(os.path.abspath(Path(folder) / Path(text).expanduser()))


def _can_be_named(text: str) -> bool:
    """Whether the system has such names: a half character is none, but for those that stand for bytes of a name."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


AbsolutePath = Annotated[Path, BeforeValidator(_absolute)]
"""A path of a recipe, made absolute with the folder in the validation context."""

PACKAGE = "package:"
"""Begins the name of a file that lies in an installed package."""


def _absolute_or_packaged(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str) and value.startswith(PACKAGE):
        return value
    return str(_absolute(value, info))


FilePlace = Annotated[str, BeforeValidator(_absolute_or_packaged)]
"""A path of a recipe, made absolute as in `AbsolutePath`, or `package:NAME`, which is the same on every machine."""


def without_places(value: Any) -> Any:
    """Plain values with nothing that tells where things are: of an absolute path its last part, of a server no name.

    Two machines that keep the same files in different places then write the same bytes, and what is published names
    no user and no host.
    """
    if isinstance(value, Mapping):
        return {key: without_places(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_places(entry) for entry in value]
    return _placeless(value) if isinstance(value, str) else value


def _placeless(text: str) -> str:
    if os.path.isabs(text) or PureWindowsPath(text).is_absolute():
        return PureWindowsPath(text).name or text
    return _SERVER.sub(_ELSEWHERE, text)
