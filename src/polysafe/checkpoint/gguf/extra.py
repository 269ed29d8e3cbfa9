"""The libraries that only GGUF files need."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

from polysafe.errors import ResourceError

EXTRA = "pip install 'polysafe[gguf]'"


def gguf_package() -> None:
    """Refuses to go on without the package `gguf`.

    Raises:
        ResourceError: It is missing.
    """
    _require("gguf", "reading a GGUF file needs the package gguf")


def transformers_package() -> None:
    """Refuses to go on without transformers, which knows the architectures.

    Raises:
        ResourceError: It is missing.
    """
    _require("transformers", "making a checkpoint of a GGUF file needs the transformers library")


def versions() -> dict[str, str]:
    """Versions of the libraries that decide what comes out."""
    return {name: version(name) for name in ("gguf", "transformers")}


def _require(name: str, problem: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        raise ResourceError(problem, remedy=EXTRA) from error
