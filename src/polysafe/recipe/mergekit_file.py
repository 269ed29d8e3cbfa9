"""What stands in a configuration of mergekit: its models, the layers that are taken of them, its parameters.

Its documentation, and what version 0.1.5 does with tiny models, say what its fields mean; nothing of it is used here.
What has no counterpart in a recipe is refused with its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeGuard

from polysafe.checkpoint.hub import COMMIT
from polysafe.checkpoint.source import HUB_NAME
from polysafe.errors import RecipeError, did_you_mean
from polysafe.files.yaml_lines import Document, Place

METHODS = {
    "linear": {"weight", "normalize"},
    "task_arithmetic": {"weight", "normalize", "lambda"},
    "ties": {"weight", "density", "normalize", "lambda"},
    "dare_linear": {"weight", "density", "normalize", "lambda", "rescale"},
    "dare_ties": {"weight", "density", "normalize", "lambda", "rescale"},
    "slerp": {"t"},
    "passthrough": set[str](),
}
"""Methods that have a counterpart -> their parameters that do."""
_PER_MODEL = frozenset({"weight", "density"})
BY_HAND = "say it in the recipe by hand, or leave it to mergekit"
_WHY = {
    "chat_template": "a recipe copies the chat template with the tokenizer: remove it, or set `tokenizer_source`",
    "modules": "models of several parts are not merged: merge the language models alone",
    "rescale": "trimmed task vectors are not rescaled: remove it",
    "scale": "tensors that are copied are not scaled: remove it",
    "tokens": "rows of embeddings are taken as they are: use models of one vocabulary",
    "pad_to_multiple_of": "embeddings keep their shape: remove it",
    "filter_wise": "remove it",
}

Levels = Sequence[tuple[Mapping[str, Any], Place]]


@dataclass(frozen=True)
class Input:
    """A model that is merged: the name of its source, where it stands, and its parameters, the nearest first."""

    source: str
    place: Place
    levels: Levels


@dataclass(frozen=True)
class Slice:
    """Some layers of the result, `start` to `stop`; `stop` is None where there are all of them."""

    place: Place
    start: int
    stop: int | None
    inputs: tuple[Input, ...]
    levels: Levels


@dataclass
class Configuration:
    """A configuration that is being read.

    Attributes:
        document: The YAML.
        relative_to: Folder that paths which are relative to the working directory are written relative to; by default
            they are absolute.
        names: Model, as it is written there -> name of its source, where that is known.
        sources: Name -> place, of the models that were met.
        notes: What should be known of what was read.
        method: Its merge method.
    """

    document: Document
    relative_to: Path | None = None
    names: dict[str, str] = field(default_factory=dict)
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    method: str = ""

    # what stands at a place

    def at(self, place: Place) -> Any:
        """The value there; None where a key is not said."""
        value: Any = self.document.value
        for key in place:
            value = value.get(key) if isinstance(value, dict) else value[key]
        return value

    def refuse(self, place: Place, text: str, remedy: str, *, key: bool = False) -> NoReturn:
        label = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        mark = self.document.mark(place, key=key)
        problem = f"{label}: {text}" if label else text
        where = self.document.where(mark)
        raise RecipeError(f"{problem}\n{self.document.excerpt(mark)}", where=where, remedy=remedy)

    def mapping(self, place: Place, known: Sequence[str]) -> Mapping[str, Any]:
        value = self.at(place)
        if not isinstance(value, dict):
            self.refuse(place, "must be a mapping", f"with the keys {', '.join(known)}")
        for key in value:
            if key not in known:
                remedy = _WHY.get(key) or did_you_mean(key, known) or BY_HAND
                self.refuse((*place, key), f"`{key}` has no counterpart in a recipe", remedy, key=True)
        return value

    def list_at(self, place: Place) -> list[Any]:
        value = self.at(place)
        if not isinstance(value, list) or not value:
            self.refuse(place, "must be a list with at least one entry", "see mergekit's documentation")
        return value

    def text(self, place: Place, missing: str) -> str:
        value = self.at(place)
        if not isinstance(value, str) or not value:
            self.refuse(place, missing if value is None else "must be a text", "see mergekit's documentation")
        return value

    # models

    def source(self, place: Place) -> str:
        """The name of the source that is meant by the model at a place."""
        text = self.text(place, "names no model")
        if "+" in text:
            self.refuse(place, "an adapter on a model", "make it a source with `adapter_of`, in the recipe by hand")
        path, _, revision = text.partition("@")
        there = Path(path).expanduser()
        if HUB_NAME.fullmatch(path) and not there.exists():
            if not COMMIT.match(revision):
                remedy = f"write {path}@COMMIT with the 40 digits that its page shows; mergekit reads that too"
                self.refuse(place, f"{text!r} is at no commit of the hub, and so may become another model", remedy)
            found = {"hub": path, "revision": revision}
        else:
            absolute = there.is_absolute() or self.relative_to is None
            found = {"path": str(there.absolute()) if absolute else os.path.relpath(there, self.relative_to)}
        known = next((name for name, each in self.sources.items() if each == found), None)
        if known is None:
            known = self.names.get(text) or self.new_name(path)
            self.sources[known] = found
        return known

    def new_name(self, path: str) -> str:
        stem = re.sub(r"[^\w.-]", "-", Path(path).name).lstrip(".-")[:60] or "model"
        taken = {*self.sources, *self.names.values()}
        return next(name for name in (stem, *(f"{stem}-{i}" for i in range(2, len(taken) + 3))) if name not in taken)

    def slices(self) -> list[Slice]:
        """What is merged, in order; one slice without an end for `models`."""
        given = [key for key in ("models", "slices") if self.at((key,)) is not None]
        if len(given) != 1:
            self.refuse((), "a configuration has either `models` or `slices`", "give one of them")
        shared = self.level(("parameters",))
        if given == ["models"]:
            models = [("models", index) for index in range(len(self.list_at(("models",))))]
            inputs = tuple(self.input(place, ("model", "parameters"), shared) for place in models)
            return [Slice(("models",), 0, None, inputs, shared)]
        found: list[Slice] = []
        for index in range(len(self.list_at(("slices",)))):
            found.append(self.slice(("slices", index), shared, found[-1].stop or 0 if found else 0))
        return found

    def slice(self, place: Place, shared: Levels, begin: int) -> Slice:
        self.mapping(place, ("sources", "parameters"))
        levels = [*self.level((*place, "parameters")), *shared]
        places = [(*place, "sources", index) for index in range(len(self.list_at((*place, "sources"))))]
        inputs = tuple(self.input(each, ("model", "layer_range", "parameters"), levels) for each in places)
        for each in places:
            layers = self.at((*each, "layer_range"))
            fits = isinstance(layers, list) and len(layers) == 2 and all(type(end) is int for end in layers)
            if not fits or layers[0] >= layers[1]:
                self.refuse((*each, "layer_range"), "must be the first layer and the one after the last", "[0, 8]")
            if layers[0] != begin:
                text = f"layer {layers[0]} where layer {begin} is next: layers are left out, repeated or out of order"
                self.refuse((*each, "layer_range"), text, "take every layer once, in order, or leave it to mergekit")
            if layers != self.at((*places[0], "layer_range")):
                self.refuse((*each, "layer_range"), "other layers than those they are merged with", BY_HAND)
        return Slice(place, begin, self.at((*places[0], "layer_range"))[1], inputs, levels)

    def input(self, place: Place, known: Sequence[str], shared: Levels) -> Input:
        self.mapping(place, known)
        own = self.level((*place, "parameters"), _PER_MODEL)
        return Input(self.source((*place, "model")), place, [*own, *shared])

    # parameters

    def level(self, place: Place, known: frozenset[str] | None = None) -> Levels:
        """The parameters at a place, those with a counterpart; `int8_mask` saves memory alone."""
        if self.at(place) is None:
            return []
        wanted = METHODS[self.method] if known is None else METHODS[self.method] & known
        found = self.mapping(place, (*sorted(wanted), "int8_mask"))
        if "int8_mask" in found:
            self.notes.append("`int8_mask` is left out: it changes no weight")
        return [(found, place)]

    def value(self, key: str, levels: Levels) -> tuple[Any, Place]:
        """A parameter and where it stands; None where nobody says it."""
        for parameters, place in levels:
            if parameters.get(key) is not None:
                return parameters[key], (*place, key)
        return None, ()

    def number(self, key: str, levels: Levels, default: float | None, at: Place = ()) -> float:
        value, place = self.value(key, levels)
        value = _single(value)
        if value is None and default is not None:
            return default
        if value is None:
            self.refuse(at, f"`{key}` is missing", "mergekit needs it too")
        if not is_number(value):
            self.refuse(place, "only one number for all layers and tensors has a counterpart", BY_HAND)
        return float(value)

    def flag(self, key: str, levels: Levels, default: bool) -> bool:
        value, place = self.value(key, levels)
        value = _single(value)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(place, "must be true or false", "correct it")
        return value

    def share(self, key: str, levels: Levels) -> float:
        """A density: 1 where nothing is said."""
        value = self.number(key, levels, 1.0)
        if not 0 < value <= 1:
            self.refuse(self.value(key, levels)[1], f"must be above 0 and at most 1, not {value:g}", "correct it")
        return value


def is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _single(value: Any) -> Any:
    """What a list of one value, or of one entry without a filter, says."""
    if isinstance(value, list) and len(value) == 1:
        only = value[0]
        return only.get("value") if isinstance(only, dict) and only.keys() <= {"value"} else only
    return value
