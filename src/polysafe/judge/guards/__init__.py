"""Guard models: their own prompt formats, their own menus.

A guard model is a classifier that speaks: it was trained on one input format and answers in another, and only these two
work. Formats are an interface; their texts are quoted as published where the model was trained on them, and each class
says from which file of which repository they are.

Every guard judges the answer together with the prompt. A reply that is not on its menu is `UNPARSED`.

One file a family; a package of another's own provides one by the entry-point group `polysafe.guards`.
"""

from __future__ import annotations

from typing import Any

from polysafe.errors import RecipeError
from polysafe.judge.backend import Backend
from polysafe.judge.guards.base import Guard
from polysafe.registry import Registry


def _family(value: object) -> tuple[str, ...]:
    named = isinstance(value, type) and issubclass(value, Guard) and hasattr(value, "family")
    return (value.family,) if named else ()  # type: ignore[attr-defined]


GROUP = "polysafe.guards"
GUARDS: Registry[type[Guard]] = Registry(
    "guard model family",
    GROUP,
    ("polysafe.judge.guards",),
    _family,
)


def make_guard(family: str, backend: Backend, **options: Any) -> Guard:
    """The judge of a guard model's family.

    Raises:
        RecipeError: There is no such family, or it has no such option.
    """
    guard = GUARDS.get(family)
    try:
        return guard(backend, **options)
    except TypeError as error:
        raise RecipeError(f"the guard {family} does not take these options: {error}") from error
