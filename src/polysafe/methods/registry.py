"""Finds methods by name.

Built-in methods are found in the module of their name or of several, or else by scanning this package; those of other
packages by the entry-point group `polysafe.methods`, where an entry is called as the method it provides. Nothing is
imported before it is needed: a recipe of swaps does not wait for torch, which methods that run models bring.

A name means the latest version of a method, `name.v1` one version of it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from polysafe.errors import RecipeError, did_you_mean
from polysafe.methods.base import Method
from polysafe.registry import entry_points, modules_of, provided

GROUP = "polysafe.methods"

MethodClass = TypeVar("MethodClass", bound=type[Method])

_SHARED = dict.fromkeys(("soup", "task_arithmetic", "ties", "dare"), "merges")
"""Modules of the methods that share one."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_VERSIONED = re.compile(r"(?P<name>.+)\.v(?P<version>\d+)")
_registered: dict[str, dict[int, type[Method]]] = {}


def register(method: MethodClass) -> MethodClass:
    """Class decorator that makes a method known by its `name` and `version`.

    Raises:
        RecipeError: The name is not one a recipe can use, or another class has this name and version.
    """
    place = f"{method.__module__}.{method.__qualname__}"
    if not _NAME.fullmatch(method.name) or method.version < 1:
        raise RecipeError(
            f"{method.name!r} version {method.version} is not a method's name and version",
            where=place,
            remedy="use lower-case letters, digits and underscores for the name; versions start at 1",
        )
    versions = _registered.setdefault(method.name, {})
    other = versions.setdefault(method.version, method)
    # the same class comes again when its module is reloaded
    if (other.__module__, other.__qualname__) != (method.__module__, method.__qualname__):
        raise RecipeError(
            f"{method.name}.v{method.version} is already taken by {other.__module__}.{other.__qualname__}",
            where=place,
            remedy="rename one of the two, or raise the version",
        )
    versions[method.version] = method
    return method


def resolve(name: str) -> type[Method]:
    """The method called `name`, for example `layer_swap` (its latest version) or `layer_swap.v1`.

    Raises:
        RecipeError: There is no such method or version, or the package that provides it cannot be loaded.
    """
    match = _VERSIONED.fullmatch(name)
    bare = match["name"] if match else name
    _load_named(bare)
    _load_plugin(bare)
    versions = _registered.get(bare)
    if not versions:
        raise _unknown(name, bare)
    if match is None:
        return versions[max(versions)]
    if (version := int(match["version"])) not in versions:
        _load_builtin()  # an old version may have a module of its own
    if version not in versions:
        known = ", ".join(f"{bare}.v{v}" for v in sorted(versions))
        raise RecipeError(f"there is no {name}", remedy=f"known: {known}")
    return versions[version]


def names() -> tuple[str, ...]:
    """Names of all methods, sorted; methods of other packages are listed without being imported."""
    _load_builtin()
    return tuple(sorted({*_registered, *(entry.name for entry in entry_points(group=GROUP))}))


@cache
def described(label: str) -> type[Method] | None:
    """The method that a label of results begins with, for its titles and citation; None where nobody knows it."""
    try:
        return resolve(label.partition(".")[0])
    except RecipeError:
        return None


@cache
def _load_builtin() -> None:
    for _ in modules_of("polysafe.methods"):
        pass  # a method registers itself


@cache
def _load_named(name: str) -> None:
    """Loads the module of a method, or all of them where none is known for it."""
    module = f"polysafe.methods.{_SHARED.get(name, name)}"
    if _NAME.fullmatch(name) and find_spec(module) is not None:
        import_module(module)
    if name not in _registered:
        _load_builtin()


def _load_plugin(name: str) -> None:
    for method, place in provided(GROUP, name):
        if not (isinstance(method, type) and issubclass(method, Method) and method.name == name):
            raise RecipeError(
                f"the entry point provides {method!r}, which is not a method called {name!r}", where=place
            )
        register(method)


def _unknown(name: str, bare: str) -> RecipeError:
    known = names()
    listed = f"methods: {', '.join(known)}"
    return RecipeError(
        f"there is no method {name!r}", remedy=" ".join(filter(None, [did_you_mean(bare, known), listed]))
    )
