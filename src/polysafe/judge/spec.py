"""What a judge is called on the command line: the short form of a recipe's block.

Both forms end in the same value, so that a recipe can say whatever the command line can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from polysafe.errors import RecipeError, did_you_mean
from polysafe.files.recipe_errors import explain
from polysafe.generate.keys import allow_keys, host_of, split_address
from polysafe.judge.block import JUDGES, JudgeBlock, JudgeSpec, Place, has_kind


def keys_of(kind: object) -> tuple[str, ...]:
    """The keys that a block of a kind may have; nothing for a kind that there is not."""
    return tuple(JUDGES.get(str(kind)).model_fields) if has_kind(kind) else ()


def place_keys() -> tuple[str, ...]:
    """The keys of a block that says where a model is."""
    return tuple(Place.model_fields)


def parse_judge(
    given: JudgeSpec | str | Sequence[str], *, key: str | None = None, translate: str | None = None
) -> JudgeSpec:
    """The judge that the command line names; that of a recipe as it is.

    Args:
        given: `organism`, `refusal_or_frame`, `KIND=FOLDER` or `KIND=NAME@URL`; several are a vote by majority.
        key: Environment variable with the key of the servers.
        translate: `FOLDER` or `NAME@URL` of a translator, for the translate test.

    Raises:
        RecipeError: There is no such judge, or it cannot be combined so.
    """
    if isinstance(given, JudgeSpec):
        return given
    named = [given] if isinstance(given, str) else list(given)
    if len(named) == 1 and has_kind(named[0]) and JUDGES.get(named[0]).exact:
        data: dict[str, Any] = {"kind": named[0]}
    elif len(named) == 1:
        data = _named(named[0], key)
    else:
        data = {"kind": "vote", "judges": [_named(text, key) for text in named]}
    if translate is not None:
        data = {"kind": "translate_test", "judge": data, "translator": _place(translate, key)}
    try:
        found: JudgeSpec = TypeAdapter[Any](JudgeBlock).validate_python(data)
    except ValidationError as error:
        raise explain(error, data, None, lambda *_: ()) from None
    return found


def named_judge(
    given: JudgeSpec | str | Sequence[str] | None, key: str | None = None, *, translate: str | None = None
) -> JudgeSpec | None:
    """The same where a judge need not be named: None where there is none.

    Raises:
        RecipeError: As for `parse_judge`, or something is said of a judge and none is named.
    """
    if given:
        return parse_judge(given, key=key, translate=translate)
    for name, value in {"translator": translate, "key of a judge": key}.items():
        if value is not None:
            raise RecipeError(f"a {name} needs a judge, and none is named", remedy="name one with --judge")
    return None


def _named(text: str, key: str | None) -> dict[str, Any]:
    name, separator, where = text.partition("=")
    place = _place(where, key)
    blocks = dict.fromkeys(block for block in JUDGES.own.values() if not block.exact)
    if has_kind(name):
        blocks[JUDGES.get(name)] = None
    forms = {block: block.short_forms() for block in blocks}
    for block, short in forms.items():
        if separator and name in short and place.keys() <= block.model_fields.keys():
            return {**short[name], **place}
    known = tuple(dict.fromkeys(each for short in forms.values() for each in short))
    exact = tuple(kind for kind, block in JUDGES.own.items() if block.exact)
    raise RecipeError(
        f"there is no judge {text!r}",
        remedy=did_you_mean(name, (*known, *exact))
        or f"use KIND=FOLDER or KIND=NAME@URL with one of {', '.join(known)}; {', '.join(exact)} stand alone, and"
        " are for the families of polysafe",
    )


def _place(where: str, key: str | None) -> dict[str, Any]:
    served = served_at(where)
    if served is None:
        return {"path": where}
    if key is None:
        return {"base_url": served[1], "model": served[0]}
    if host := host_of(served[1]):
        allow_keys([f"{key}@{host}"])  # whoever calls this names the key and the host, not a recipe
    return {"base_url": served[1], "model": served[0], "key": key}


def served_at(text: str) -> tuple[str, str] | None:
    """Name and address of a served model, `NAME@URL` or `NAME@batch+URL`; None for a folder."""
    name, separator, url = text.partition("@")
    return (name, url) if separator and split_address(url)[0].startswith(("http://", "https://")) else None
