"""What a recipe calls an attack: its name, or the template that makes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, TypeAdapter, ValidationInfo
from pydantic.json_schema import WithJsonSchema

from polysafe.data.attacks.registry import is_template
from polysafe.files.paths import AbsolutePath
from polysafe.files.recipe_errors import problem

_NAME = re.compile(r"[\w][\w.-]{0,63}")
_PATH: TypeAdapter[Path] = TypeAdapter(AbsolutePath)


def _attack_name(value: object, info: ValidationInfo) -> str | Path:
    if isinstance(value, Path) or (isinstance(value, str) and is_template(value)):
        return _PATH.validate_python(value, context=info.context)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise problem(f"{value!r} is no attack", "name one, for example prefix_injection, or a template, ./mine.txt")
    return value


AttackName = Annotated[
    str | Path, BeforeValidator(_attack_name), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 4096})
]
"""An attack, or the absolute path of a template; a relative one is taken from the recipe's folder."""
