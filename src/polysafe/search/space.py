"""The space of a search: which fields of a recipe's edits may take which values.

A field is searched where a recipe gives, in its place,

- `{low: 0.1, high: 3}`: a number between; `log: true` for one that is drawn by its logarithm, `step` for a grid;
- `{choices: [soft, hard]}`, or a plain list where the field takes one value: one of these;
- `{among: [8, 9, 10], most: 2}`: up to so many of these, for a field that takes a list.

A list where the field takes no single value is that list: `layers: [8, 9]` are two layers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from polysafe.errors import RecipeError
from polysafe.files.recipe_errors import explain, problem
from polysafe.files.strict import Strict
from polysafe.files.yaml_lines import Document, Place, read_yaml
from polysafe.recipe.measures import Search
from polysafe.recipe.recipe import Recipe, build_recipe, read_recipe_file

Value = Any
"""A value as YAML has it."""
_TOLD_APART = 64
"""Subsets up to which each is a choice of its own; of more, members are drawn one by one."""


class _Domain(Strict):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Number(_Domain):
    """A number between two."""

    low: int | float
    high: int | float
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.low < self.high:
            raise problem(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise problem("a logarithm needs low above 0", at=("low",))
        if self.log and self.step is not None:
            raise problem("a grid is not drawn by its logarithm", "leave out step or log", at=("step",))
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values that a field has to take for all of them to be taken."""
        return self.low, self.high


class Choices(_Domain):
    """One of some values."""

    choices: Annotated[tuple[Value, ...], Field(min_length=1)]

    @property
    def ends(self) -> tuple[Value, ...]:
        """All of them."""
        return self.choices


class Some(_Domain):
    """One or more of some values."""

    among: Annotated[tuple[Value, ...], Field(min_length=1)]
    most: Annotated[int, Field(ge=1)] = 1

    @property
    def slots(self) -> int:
        """Most of them together."""
        return min(self.most, len(self.among))

    @property
    def ends(self) -> tuple[Value, ...]:
        """Each alone, and the most together."""
        return (*([each] for each in self.among), list(self.among[: self.most]))


_KINDS: tuple[tuple[frozenset[str], type[Number | Choices | Some]], ...] = (
    (frozenset({"low", "high"}), Number),
    (frozenset({"choices"}), Choices),
    (frozenset({"among"}), Some),
)


@dataclass(frozen=True)
class Parameter:
    """A field that is searched.

    Attributes:
        name: What it is called: its path in the edit, `edits[1].tau` where there are several.
        place: Its path in the recipe.
        domain: The values that it may take.
        whole: Whether it is a whole number.
        listed: Whether a number stands in a list of one.
    """

    name: str
    place: Place
    domain: Number | Choices | Some
    whole: bool = False
    listed: bool = False

    @property
    def size(self) -> int | None:
        """Number of values, None where there are too many to be told apart one by one."""
        match self.domain:
            case Choices(choices=choices):
                return len(choices)
            case Some(among=among, slots=slots):
                subsets = sum(comb(len(among), count) for count in range(1, slots + 1))
                return subsets if subsets <= _TOLD_APART else None
            case Number(step=step) if step is not None or self.whole:
                return int((self.domain.high - self.domain.low) // (step or 1)) + 1
        return None

    def written(self, value: Value) -> Value:
        """A value as the field takes it."""
        return [value] if self.listed else value


@dataclass(frozen=True)
class Space:
    """A recipe with fields that have many values.

    Attributes:
        data: The recipe as plain values, with the first value of every field that is searched.
        folder: What its paths are relative to.
        parameters: The fields.
        search: How they are searched.
        document: Where everything stood, if it came from a file.
    """

    data: Mapping[str, Any]
    folder: str
    parameters: tuple[Parameter, ...]
    search: Search
    document: Document | None = None

    @cached_property
    def first(self) -> Recipe:
        """The recipe at the first value of every field."""
        return build_recipe(self.data, self.folder, self.document)

    @property
    def size(self) -> int | None:
        """Number of points, None where there are too many to count."""
        total = 1
        for each in self.parameters:
            if each.size is None:
                return None
            total *= each.size
        return total

    def at(self, setting: Mapping[str, Value]) -> Recipe:
        """The recipe at a point, without `search`.

        Args:
            setting: Name of every parameter -> its value.

        Raises:
            RecipeError: An edit does not take these values together.
        """
        data = deepcopy(dict(self.data))
        for each in self.parameters:
            _put(data, each.place, each.written(setting[each.name]))
        return build_recipe(data, self.folder, self.document)

    def defaults(self) -> dict[str, Value] | None:
        """The point at which every field has its method's own default; None where that is not in the space."""
        found = {}
        for each in self.parameters:
            _, index, *rest = each.place
            fields = type(self.first.edits[int(index)]).model_fields
            by_name = {field.alias or name: field.get_default() for name, field in fields.items()}
            value = by_name.get(str(rest[0])) if len(rest) == 1 else None
            value = list(value) if isinstance(value, tuple) else value
            if each.listed and isinstance(value, list) and len(value) == 1:
                (value,) = value
            if value is None or not _within(each, value):
                return None
            found[each.name] = value
        return found


def with_budget(
    space: Space, *, trials: int | None = None, minutes: float | None = None, seed: int | None = None
) -> Space:
    """The same space with another budget or seed; what is None stays.

    Raises:
        RecipeError: A budget is of nothing.
    """
    stated = {"trials": trials, "minutes": minutes, "seed": seed}
    content = space.search.model_dump() | {key: value for key, value in stated.items() if value is not None}
    return replace(space, search=_checked(Search, content, ("search",), None))


def _within(parameter: Parameter, value: Value) -> bool:
    match parameter.domain:
        case Number(low=low, high=high, step=None):
            return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        case Choices(choices=choices):
            return value in choices
        case Some(among=among, most=most):
            return isinstance(value, list) and 0 < len(value) <= most and set(value) <= set(among)
    return False


def load_space(path: str | os.PathLike[str]) -> Space:
    """Reads a recipe whose edits have fields to be searched.

    Raises:
        RecipeError: The file cannot be read; nothing in it is to be searched; or, with line numbers, what is wrong.
    """
    file = Path(path)
    text = read_recipe_file(file)
    document = read_yaml(text, str(file))
    if not isinstance(document.value, dict):
        raise RecipeError("a recipe is a mapping that begins with `polysafe: 1`", where=f"{file}:1")
    return make_space(document.value, file.parent, document)


def make_space(data: Mapping[str, Any], folder: str | os.PathLike[str] = "", document: Document | None = None) -> Space:
    """The space of a recipe that is given as plain values.

    Args:
        data: The recipe, with ranges in place of values and perhaps a block `search`.
        folder: What relative paths are relative to.
        document: Where everything stood.

    Raises:
        RecipeError: Nothing is to be searched, or naming every value that is wrong.
    """
    plain: dict[str, Any] = deepcopy(dict(data))
    search = _checked(Search, plain.pop("search", None) or {}, ("search",), document)
    domains: dict[Place, Number | Choices | Some] = {}
    for place, value in list(_nodes(plain.get("edits"), ("edits",))):
        kind = next((kind for keys, kind in _KINDS if isinstance(value, Mapping) and keys <= value.keys()), None)
        if kind is not None:
            domains[place] = _checked(kind, value, place, document)
    listed = {place: _first(domain) for place, domain in domains.items()}
    for place, value in listed.items():
        _put(plain, place, value)
    choices = _plain_choices(plain, folder, document)
    if inner := next((place for place in domains if any(place[: len(outer)] == outer for outer in choices)), None):
        raise RecipeError(f"{_label(inner)}: a range cannot stand in a list of choices", remedy="name every choice")
    domains |= choices
    edits = plain.get("edits")
    several = isinstance(edits, list) and len(edits) > 1
    parameters = []
    for place, domain in sorted(domains.items(), key=lambda item: str(item[0])):
        name = _label(place if several else place[2:])
        parameters.append(_settled(Parameter(name, place, domain), plain, folder, document))
    build_recipe(plain, folder, document)
    if not parameters:
        raise RecipeError(
            "nothing is to be searched: no field of `edits` has several values",
            where=None if document is None else document.name,
            remedy="write for example `strength: {low: 0.1, high: 2}` or `utility: {choices: [soft, hard]}`",
        )
    return Space(plain, os.fspath(folder), tuple(parameters), search, document)


def _settled(parameter: Parameter, data: dict[str, Any], folder: Any, document: Document | None) -> Parameter:
    """A parameter of whose values the field takes every one; the recipe is left at the first of them."""
    domain = parameter.domain

    def takes(value: Value) -> bool:
        return _takes(data, parameter.place, value, folder)

    if isinstance(domain, Number):
        if not takes(domain.low) and takes([domain.low]):
            parameter = Parameter(parameter.name, parameter.place, domain, parameter.whole, listed=True)
        ends_whole = all(isinstance(each, int) for each in (domain.low, domain.high, domain.step or 1))
        between = parameter.written(domain.low + (domain.high - domain.low) * 0.381966)
        whole = ends_whole and (domain.step is not None or not takes(between))
        parameter = Parameter(parameter.name, parameter.place, domain, whole, parameter.listed)
    for value in domain.ends:
        written = parameter.written(value)
        if not takes(written):
            _put(data, parameter.place, written)
            build_recipe(data, folder, document)  # says what is wrong
    _put(data, parameter.place, parameter.written(_first(domain)))
    return parameter


def _plain_choices(data: dict[str, Any], folder: Any, document: Document | None) -> dict[Place, Choices]:
    """Lists at places that take one value; the recipe is left with the first of each."""
    found: dict[Place, Choices] = {}
    for place, value in list(_nodes(data.get("edits"), ("edits",))):
        inside = any(place[: len(outer)] == outer for outer in found)  # of a list that is a choice as a whole
        if not inside and isinstance(value, list) and value and _takes(data, place, value[0], folder):
            found[place] = _checked(Choices, {"choices": value}, place, document)
            _put(data, place, value[0])
    return found


def _takes(data: Mapping[str, Any], place: Place, value: Value, folder: Any) -> bool:
    """Whether a place takes a value: no error is said to lie there, or in its edit as a whole."""
    changed = deepcopy(dict(data))
    _put(changed, place, value)
    try:
        Recipe.model_validate(changed, context={"folder": os.fspath(folder)})
    except ValidationError as error:
        for each in error.errors(include_url=False):
            at = (*each["loc"], *each.get("ctx", {}).get("at", ()))
            if at[: len(place)] == place or (at[:2] == place[:2] and len(at) == 2):
                return False
    return True


def _checked(kind: type[Any], value: Any, place: Place, document: Document | None) -> Any:
    """A block of its own, with errors that say where it stands."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise explain(error, value, document, lambda *_: tuple(kind.model_fields), place) from None


def _first(domain: Number | Choices | Some) -> Value:
    return domain.ends[0]


def _nodes(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Every value below the entries of a list, with its path; what lies in a range is not looked at."""
    children: Sequence[tuple[str | int, Any]] = ()
    if isinstance(value, Mapping):
        if len(place) > 2:
            yield place, value
            if any(keys <= value.keys() for keys, _ in _KINDS):
                return
        children = list(value.items())
    elif isinstance(value, list):
        if len(place) > 2:
            yield place, value
        children = list(enumerate(value))
    for key, child in children:
        yield from _nodes(child, (*place, key))


def _put(data: Any, place: Place, value: Value) -> None:
    *path, last = place
    for part in path:
        data = data[part]
    data[last] = value


def _label(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
