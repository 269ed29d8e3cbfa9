"""Numbers and switches of what a user wrote, taken as they stand: `true` is no 1, `"0.3"` no 0.3, and 1 no `true`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError
from pydantic_core.core_schema import no_info_before_validator_function

_OTHER = frozenset({"metadata", "serialization", "config", "function", "cls", "default", "ref"})
"""Keys of a schema that hold no schema."""


def _make_strict(schema: Any) -> None:
    for node in list(_nodes(schema)):
        choices = node.get("choices", ()) if node["type"] == "union" else ()
        kinds = [each["type"] for each in choices if isinstance(each, dict)]
        for each in choices:
            if isinstance(each, dict) and each["type"] == "int" and "float" in kinds:
                each["strict"] = True  # which of the two a number is, is told by how it is written
        if node["type"] in {"float", "bool"}:
            node["strict"] = True
        elif node["type"] == "int" and not node.get("strict"):  # 3.0 is an integer, and so are those of numpy
            inner = dict(node)
            node.clear()
            node.update(no_info_before_validator_function(_integer, inner))


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas in it, the outer ones first."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        children = [value for key, value in schema.items() if key not in _OTHER]
    else:
        children = list(schema) if isinstance(schema, (list, tuple)) else []
    for child in children:
        yield from _nodes(child)


def _integer(value: object) -> object:
    if isinstance(value, (bool, str, bytes)):
        raise PydanticKnownError("int_type")
    return value


class Strict(BaseModel):
    """A model whose fields take no text or switch for a number, and no number or text for a switch."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the fields, with strict numbers and switches in it, in whatever they are nested."""
        schema = handler(source)
        _make_strict(handler.resolve_ref_schema(schema))
        return schema
