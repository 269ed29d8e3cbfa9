"""Commands that are declared in one place and carried out in another, which is imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

Declared = Callable[..., None]


def carried_out_by(place: str) -> Callable[[Declared], Declared]:
    """Makes a declaration a command: what was given goes by name to a function of a module of the command line.

    Args:
        place: `module:function`.
    """
    module, _, name = place.partition(":")

    def command(declared: Declared) -> Declared:
        @wraps(declared)
        def call(**given: Any) -> None:
            given.pop("_quiet", None)  # has had its effect when it was read
            getattr(import_module(f"polysafe.cli.{module}"), name)(**given)

        return call

    return command
