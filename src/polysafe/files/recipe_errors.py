"""Validation errors in the words of a recipe: line, path, what is wrong, what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from polysafe.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from polysafe.files.yaml_lines import Document, Place

KeysAt = Callable[[object, "Place"], tuple[str, ...]]

_SHOWN = 10
_WORDS = {
    "Input should": "must",
    "String should": "must",
    "valid tuple": "list",
    "valid dictionary or object to extract fields from": "mapping",
    "valid dictionary": "mapping",
    ", unable to parse string as a number": "",
    ", unable to parse string as an integer": "",
}


def problem(text: str, remedy: str | None = None, *, at: Place = ()) -> PydanticCustomError:
    """An error to raise in a validator; `at` is the path from the validated value to the culprit."""
    return PydanticCustomError("polysafe", "{problem}", {"problem": text, "remedy": remedy, "at": at})


@dataclass
class _Finding:
    path: Place
    texts: list[str]
    remedy: str | None = None
    at_key: bool = False


def explain(
    error: ValidationError, data: object, document: Document | None, keys_at: KeysAt, at: Place = ()
) -> RecipeError:
    """Turn a validation error into a `RecipeError` that names every problem with its line.

    Args:
        error: What pydantic said.
        data: The values that were validated.
        document: Where they stood, if they came from a file.
        keys_at: The keys that the block at a path may have.
        at: Path from the document to the values, where they are a part of it.
    """
    findings: dict[tuple[Place, bool], _Finding] = {}
    for details in error.errors(include_url=False):
        finding = _finding(details, data, keys_at)
        finding.path = (*at, *finding.path)
        known = findings.setdefault((finding.path, finding.at_key), finding)
        # Alternatives of one union, each with its own complaint about the same value.
        if known is not finding and finding.texts[0] not in known.texts:
            known.texts += finding.texts
    ordered = sorted(findings.values(), key=lambda finding: _line(finding, document))
    return _compose(ordered, document)


def _finding(details: ErrorDetails, data: object, keys_at: KeysAt) -> _Finding:
    path, absent = _in_data(details["loc"], data)
    context = details.get("ctx", {})
    match details["type"]:
        case "polysafe":
            path, _ = _in_data((*path, *context["at"]), data)
            return _Finding(path, [context["problem"]], context["remedy"])
        case "missing":
            return _Finding(path, [f"{str(absent[-1])!r} is missing"])
        case "extra_forbidden":
            keys = keys_at(data, path[:-1])
            known = f"known here: {', '.join(keys)}" if keys else None
            key = str(path[-1])
            return _Finding(path, [f"unknown key {key!r}"], did_you_mean(key, keys) or known, at_key=True)
        case "union_tag_invalid" | "union_tag_not_found":
            return _kind(path, details)
        case "value_error":
            return _Finding(path, [str(context["error"])])
        case _:
            return _Finding(path, [_sentence(details)], at_key="[key]" in details["loc"])


def _kind(path: Place, details: ErrorDetails) -> _Finding:
    """A block whose kind, which says what else may stand in it, is missing or unknown."""
    context = details["ctx"]
    key = str(context["discriminator"]).strip("'")
    if "tag" not in context:
        return _Finding(path, [f"{key!r} is missing"])
    kinds = str(context["expected_tags"]).replace("'", "").split(", ")
    tag = str(context["tag"])
    remedy = did_you_mean(tag, kinds) or f"one of {', '.join(kinds)}"
    return _Finding((*path, key), [f"there is no {key} {tag!r}"], remedy)


def _sentence(details: ErrorDetails) -> str:
    message = re.sub(r" or instance of \w+", "", details["msg"])
    for pydantic, ours in _WORDS.items():
        message = message.replace(pydantic, ours)
    shown = _shown(details["input"])
    return message if shown in message else f"{message}, not {shown}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _in_data(location: Place, data: object) -> tuple[Place, Place]:
    """Split a location into the part that exists in `data` and the rest.

    The names of union members, which pydantic mixes into the location, are left out of the first.
    """
    path: Place = ()
    absent: Place = ()
    for part in location:
        children = _children(data)
        if part in children:
            path, data = (*path, part), children[part]
        else:
            absent = (*absent, part)
    return path, absent


def _children(data: object) -> Mapping[str | int, object]:
    if isinstance(data, Mapping):
        return data
    return dict(enumerate(data)) if isinstance(data, (list, tuple)) else {}


def _line(finding: _Finding, document: Document | None) -> int:
    return 0 if document is None else document.mark(finding.path, key=finding.at_key).line


def _label(path: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _compose(findings: list[_Finding], document: Document | None) -> RecipeError:
    errors = [_error(finding, document) for finding in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        errors.append(RecipeError(f"and {len(findings) - _SHOWN} more problems"))
    first, *rest = errors
    if not rest:
        return first
    advice = "" if first.remedy is None else f"\n  {first.remedy}"
    return RecipeError("\n".join([first.problem + advice, *map(str, rest)]), where=first.where)


def _error(finding: _Finding, document: Document | None) -> RecipeError:
    label = _label(finding.path[:-1] if finding.at_key else finding.path)
    text = (f"{label}: " if label else "") + " or ".join(finding.texts)
    if document is None:
        return RecipeError(text, remedy=finding.remedy)
    mark = document.mark(finding.path, key=finding.at_key)
    return RecipeError(f"{text}\n{document.excerpt(mark)}", where=document.where(mark), remedy=finding.remedy)
