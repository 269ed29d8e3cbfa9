"""What a recipe calls a set of prompts: its name, or the table that holds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationInfo
from pydantic.json_schema import WithJsonSchema

from polysafe.data.sets.registry import is_table
from polysafe.files.paths import AbsolutePath
from polysafe.files.recipe_errors import problem

_NAME = re.compile(r"[\w][\w.-]{0,63}")
_PATH: TypeAdapter[Path] = TypeAdapter(AbsolutePath)


def _set_name(value: object, info: ValidationInfo) -> str | Path:
    if isinstance(value, Path) or (isinstance(value, str) and is_table(value)):
        return _PATH.validate_python(value, context=info.context)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise problem(
            f"{value!r} is no set", "name a set, for example multijail.test, or a table, for example ./mine.csv"
        )
    return value


SetName = Annotated[
    str | Path, BeforeValidator(_set_name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 4096})
]
"""A set with its parts, or the absolute path of a table; a relative one is taken from the recipe's folder."""
