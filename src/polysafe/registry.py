"""Things by name: those that polysafe brings, found in the files of a package, and those that other packages provide.

Another package provides one by an entry point of the group; it is not imported before it is asked for.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from importlib import import_module, metadata
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType
from typing import Generic, TypeVar

from polysafe.errors import PolysafeError, RecipeError, did_you_mean

Thing = TypeVar("Thing")


class Registry(Generic[Thing]):
    """Everything of one sort.

    Args:
        what: What one of them is called in messages: `set of prompts`.
        group: Entry points of this group are such things, by their names.
        packages: Dotted names of the packages whose modules hold those of polysafe.
        names_of: The names of a value, none where it is not such a thing.
        error: Class of the error where there is none of a name.
        hint: What is said after the names of all.
    """

    def __init__(
        self,
        what: str,
        group: str,
        packages: Sequence[str],
        names_of: Callable[[object], Sequence[str]],
        *,
        error: Callable[..., PolysafeError] = RecipeError,
        hint: str = "",
    ) -> None:
        self._what, self._group, self._packages, self._names_of = what, group, packages, names_of
        self._error, self._hint = error, hint

    @cached_property
    def own(self) -> dict[str, Thing]:
        """Name -> thing, of those that polysafe brings."""
        found: dict[str, Thing] = {}
        for module in (each for package in self._packages for each in modules_of(package)):
            for value in vars(module).values():
                found |= dict.fromkeys(self._names_of(value), value)
        return dict(sorted(found.items()))

    def names(self) -> tuple[str, ...]:
        """All names; what other packages provide is named without being imported."""
        return (*self.own, *sorted({entry.name for entry in entry_points(group=self._group)} - set(self.own)))

    def get(self, name: str) -> Thing:
        """The thing of a name; what polysafe brings comes first.

        Raises:
            PolysafeError: There is none, in the class that the registry was made with.
            RecipeError: The package that provides it cannot be loaded, or provides something else.
        """
        if name in self.own:
            return self.own[name]
        for thing, place in provided(self._group, name):
            if name not in self._names_of(thing):
                raise RecipeError(f"the entry point provides {thing!r}, which is no {self._what} {name!r}", where=place)
            return thing  # type: ignore[return-value]  # `names_of` says that it is one
        names = self.names()
        raise self._error(
            f"there is no {self._what} {name!r}",
            remedy=did_you_mean(name, names) or f"there are: {', '.join(names)}{self._hint}",
        )


def entry_points(group: str, name: str | None = None) -> EntryPoints:
    """Those of a group that the installed packages have, or the one of a name.

    All of them are found by opening a file of every package; they are kept until a folder of packages changes.
    """
    every = _entry_points(packages_state())
    found = every.get(group, EntryPoints())
    return found if name is None else found.select(name=name)


def packages_state() -> tuple[tuple[str, int], ...]:
    """Changes where a package is installed or removed: the folders of packages, and when each changed last."""
    return tuple((place, _changed(place)) for place in sys.path)


def _changed(place: str) -> int:
    """When something was put into a folder or taken out of it."""
    try:
        return os.stat(place or os.curdir).st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)
def _entry_points(_: tuple[tuple[str, int], ...]) -> dict[str, EntryPoints]:
    every = metadata.entry_points()
    return {group: every.select(group=group) for group in every.groups}


def modules_of(package: str) -> Iterator[ModuleType]:
    """Every module of a package, imported, in the order of their names."""
    parent = import_module(package)
    for module in pkgutil.iter_modules(parent.__path__, f"{package}."):
        yield import_module(module.name)


def provided(group: str, name: str) -> Iterator[tuple[object, str]]:
    """What other packages provide under a name, and which package that is.

    Raises:
        RecipeError: A package cannot be loaded.
    """
    for entry in entry_points(group=group, name=name):
        yield _load(entry), _place(entry)


def _load(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except RecipeError:
        raise
    except Exception as error:
        raise RecipeError(
            f"{entry.name!r} cannot be loaded: {type(error).__name__}: {error}",
            where=_place(entry),
            remedy="update or remove the package that provides it",
        ) from error


def _place(entry: EntryPoint) -> str:
    package = "an installed package" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
    return f"{package} ({entry.value})"
