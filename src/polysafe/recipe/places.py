"""Recipes without the places of one machine, and with those of another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from polysafe.errors import RecipeError
from polysafe.files.yaml_lines import write_yaml
from polysafe.recipe.recipe import Recipe, make_recipe

SOURCES, OUTPUT = "sources", "model"
"""Placeholders of what goes in, models and files, and of what comes out."""
NO_JUDGE = "https://judge.invalid/v1"
"""Stands for the address of a judge's server, which may be a host name of the user's."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
Key = tuple[str | int, ...]


def portable(recipe: Recipe) -> str:
    """The recipe with every default written out; places are relative to the folder that it is put into.

    Models that are not on the hub, judges, and files that options name become `./sources/NAME`.
    """
    data: dict[str, Any] = recipe.model_dump(mode="json")
    for name, source in data["sources"].items():
        if "path" in source or "gguf" in source:  # a GGUF file stands for the folder that was made of it
            source["path"] = f"./{SOURCES}/{name}"
            source.pop("gguf", None)
    names = {path: name for name, path in option_files(recipe).items()}
    for key, path in _paths(recipe):
        _put(data, key, f"./{SOURCES}/{names[path]}")
    data.pop("data", None)  # who does it again says where sets are
    for block in ("evaluate", "validation"):
        _replace(data.get(block), "base_url", lambda url: url and NO_JUDGE)
    data["output"]["path"] = f"./{OUTPUT}"
    return write_yaml(data)


def placed(recipe: Recipe, root: Path, places: Mapping[str, Path], output: Path) -> Recipe:
    """A portable recipe, read from `root`, with the places of this machine.

    Args:
        recipe: The recipe.
        root: Folder that it was read from.
        places: Where every input is, by name.
        output: Where the output goes.

    Raises:
        RecipeError: The recipe names a place that is no input on record.
    """
    data: dict[str, Any] = recipe.model_dump(mode="json")
    for name, source in data["sources"].items():
        if name in places:
            source |= {"path": str(places[name])}
            for other in ("hub", "revision", "gguf"):
                source.pop(other, None)
    for key, path in _paths(recipe):
        if path.parent != root / SOURCES or path.name not in places:
            raise RecipeError(f"names {path}, which is no input on record", where=root, remedy="do not trust it")
        _put(data, key, str(places[path.name]))
    data["output"]["path"] = str(output)
    return make_recipe(data)


def content(text: Mapping[str, Any]) -> dict[str, Any]:
    """What a portable recipe says apart from where its models are, which the hashes of the inputs tell better."""
    return {**text, "sources": {name: source.get("adapter_of") for name, source in text["sources"].items()}}


def option_files(recipe: Recipe) -> dict[str, Path]:
    """Files and folders that options and the judge of a recipe name, under a name of their own each."""
    taken: dict[str, Path] = {}
    for path in dict.fromkeys(path for _, path in _paths(recipe)):
        stem = name = _UNSAFE.sub("_", path.name).lstrip(".-") or "file"
        number = 1
        while name in taken or name in recipe.sources:
            number += 1
            name = f"{number}-{stem}"
        taken[name] = path
    return taken


def _paths(recipe: Recipe) -> Iterator[tuple[Key, Path]]:
    """Every path but those of sources and output, with its place in the recipe."""
    for index, edit in enumerate(recipe.edits):
        yield from _paths_in(edit.model_dump(by_alias=True), ("edits", index))
    for name, block in (("evaluate", recipe.evaluate), ("validation", recipe.validation)):
        if block is not None:
            yield from _paths_in(block.model_dump(), (name,))
            if block.judge is not None:  # the block writes it as text
                yield from _paths_in(block.judge.model_dump(), (name, "judge"))


def _paths_in(value: object, at: Key) -> Iterator[tuple[Key, Path]]:
    if isinstance(value, Path):
        yield at, value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _paths_in(child, (*at, key))
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _paths_in(child, (*at, index))


def _put(data: Any, key: Key, value: str) -> None:
    for part in key[:-1]:
        data = data[part]
    data[key[-1]] = value


def _replace(value: Any, name: str, new: Callable[[Any], Any]) -> None:
    """Replaces every entry of that name, however deep."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key == name:
                value[key] = new(child)
            else:
                _replace(child, name, new)
    elif isinstance(value, list):
        for child in value:
            _replace(child, name, new)
