"""Several recipes in one file: `each: {language: [bn, sw]}` makes a recipe of every value, put in place of `$language`.

Several names are combined, each value of one with each of the others. `${language}` stands where letters follow. Text
that is nothing but `$tau` becomes the value itself, a number for a number. Sources that a recipe does not use are left
out of it, so that what is made of it is what a recipe of its own would have made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, StringConstraints, ValidationError

from polysafe.errors import RecipeError
from polysafe.files.recipe_errors import explain, problem
from polysafe.files.yaml_lines import Document, read_yaml
from polysafe.recipe.measures import Block, NotEmpty, distinct
from polysafe.recipe.recipe import Recipe, build_recipe, parse_recipe, read_recipe_file, recipe_schema

KEY = "each"
MOST = 1000
"""Most recipes of one file."""
_PLACE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w{0,63}$")]
Values = Annotated[tuple[int | float | str, ...], *NotEmpty, AfterValidator(distinct)]
Setting = Mapping[str, int | float | str]


def _bounded(each: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    count = 1
    for values in each.values():
        count *= len(values)
    if count > MOST:
        raise problem(f"{count} recipes, more than {MOST}", "make files of fewer")
    return each


class Each(Block):
    """What a file makes several recipes of."""

    each: Annotated[dict[Variable, Values], *NotEmpty, AfterValidator(_bounded)]
    """Name -> values; a recipe is made of every value, or combination of values, in place of `$NAME`."""


def load_recipes(path: str | os.PathLike[str]) -> tuple[Recipe, ...]:
    """Reads a file of one recipe, or of several; relative paths in it are relative to its folder.

    Raises:
        RecipeError: The file cannot be read, or, with line numbers, what is wrong in it.
    """
    file = Path(path)
    return parse_recipes(read_recipe_file(file), str(file), file.parent)


def parse_recipes(text: str, name: str = "recipe", folder: str | os.PathLike[str] = "") -> tuple[Recipe, ...]:
    """Reads one recipe, or several, from YAML text.

    Args:
        text: The YAML.
        name: What error messages call the text.
        folder: What relative paths are relative to.

    Raises:
        RecipeError: With the line of every problem.
    """
    document = read_yaml(text, name)
    data = document.value
    if not isinstance(data, dict):
        return (parse_recipe(text, name, folder),)  # which refuses it
    return make_recipes(data, folder, document) if KEY in data else (build_recipe(data, folder, document),)


def make_recipes(
    data: Mapping[str, Any], folder: str | os.PathLike[str] = "", document: Document | None = None
) -> tuple[Recipe, ...]:
    """The recipes of plain values that have `each`, in order, the last name changing first.

    Args:
        data: As it would stand in YAML.
        folder: What relative paths are relative to.
        document: Where everything stood, if it came from a file.

    Raises:
        RecipeError: Naming every value that is wrong; two recipes write the same folder.
    """
    plain = dict(data)
    stated = {KEY: plain.pop(KEY, None)}
    try:
        each = Each.model_validate(stated).each
    except ValidationError as error:
        raise explain(error, stated, document, lambda *_: ()) from None
    named = set(_named(plain))
    if unused := [name for name in each if name not in named]:
        _refuse(document, (KEY, unused[0]), f"`${unused[0]}` stands nowhere", f"put ${unused[0]} where it belongs")
    made: dict[object, Recipe] = {}
    for values in product(*each.values()):
        setting = dict(zip(each, values, strict=True))
        recipe = _one(plain, setting, folder, document)
        if recipe.output.path in made:
            _refuse(
                document,
                ("output", "path"),
                f"several recipes write {recipe.output.path}",
                f"put {' and '.join(f'${name}' for name in each)} into it",
            )
        made[recipe.output.path] = recipe
    return tuple(made.values())


def recipes_schema() -> dict[str, Any]:
    """`recipe_schema` with the block that makes several recipes of a file."""
    schema, block = recipe_schema(), Each.model_json_schema()
    properties = {**schema["properties"], **block["properties"]}
    return {**schema, "properties": properties, "$defs": {**schema["$defs"], **block.get("$defs", {})}}


def _one(
    data: Mapping[str, Any], setting: Setting, folder: str | os.PathLike[str], document: Document | None
) -> Recipe:
    try:
        recipe = build_recipe(_filled(data, setting), folder, document)
    except RecipeError as error:
        values = ", ".join(f"{name}: {value}" for name, value in setting.items())
        raise RecipeError(f"with {values}: {error.problem}", where=error.where, remedy=error.remedy) from None
    return recipe.model_copy(update={"sources": {name: recipe.sources[name] for name in _used(recipe)}})


def _used(recipe: Recipe) -> list[str]:
    """Its sources that edits or output name, and those that these adapt, as they stand."""
    named = {name for edit in recipe.edits for name in edit.uses} | {recipe.output.tokenizer_from}
    named |= {recipe.sources[name].adapter_of for name in named if name is not None}
    return [name for name in recipe.sources if name in named]


def _filled(value: Any, setting: Setting) -> Any:
    if isinstance(value, str):
        whole = _PLACE.fullmatch(value)
        if whole is not None and (name := whole[1] or whole[2]) in setting:
            return setting[name]
        return _PLACE.sub(lambda found: str(setting.get(found[1] or found[2], found[0])), value)
    if isinstance(value, Mapping):
        return {str(_filled(key, setting)): _filled(child, setting) for key, child in value.items()}
    return [_filled(child, setting) for child in value] if isinstance(value, list) else value


def _named(value: Any) -> Iterator[str]:
    """Every name that stands behind a `$`, in keys and values."""
    if isinstance(value, str):
        yield from (found[1] or found[2] for found in _PLACE.finditer(value))
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from (*_named(key), *_named(child))
    elif isinstance(value, list):
        for child in value:
            yield from _named(child)


def _refuse(document: Document | None, place: tuple[str | int, ...], text: str, remedy: str) -> NoReturn:
    label = ".".join(map(str, place))
    if document is None:
        raise RecipeError(f"{label}: {text}", remedy=remedy)
    mark = document.mark(place)
    raise RecipeError(f"{label}: {text}\n{document.excerpt(mark)}", where=document.where(mark), remedy=remedy)
