"""How refusals and helpful answers begin, per language: what the refusal log-odds of a model are read from.

The openings are data, `openings.json` beside this file, each language with their source. They are short:
they say how an answer begins, never what it says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

from polysafe.data.languages import code_of
from polysafe.errors import DataError

SCHEMA = 1


@dataclass(frozen=True)
class Openings:
    """Openings in one language.

    Attributes:
        language: Code of the language.
        refusal: How refusals begin.
        compliance: How answers that do what was asked begin.
        source: Where they come from.
    """

    language: str
    refusal: tuple[str, ...]
    compliance: tuple[str, ...]
    source: str

    @cached_property
    def sha256(self) -> str:
        """Hash over the openings: log-odds can be compared where it is the same."""
        return hashlib.sha256(json.dumps([self.refusal, self.compliance]).encode()).hexdigest()


@cache
def _openings() -> Mapping[str, Openings]:
    text = (resources.files("polysafe.data") / "openings.json").read_text(encoding="utf-8")
    return {
        code: Openings(code, tuple(entry["refusal"]), tuple(entry["compliance"]), entry["source"])
        for code, entry in json.loads(text)["languages"].items()
    }


def opening_languages() -> tuple[str, ...]:
    """Codes of the languages that openings are known in."""
    return tuple(_openings())


def openings(spoken: str) -> Openings:
    """The openings of a language, in any spelling of its name.

    Raises:
        DataError: None are known.
    """
    code = code_of(spoken)
    if code not in _openings():
        raise DataError(
            f"no refusal openings are known in {spoken!r}",
            remedy=f"languages with openings: {', '.join(_openings())}; leave this one out, or name a judge",
        )
    return _openings()[code]


Known = Callable[[str], Openings]
"""Gives the openings of a language; raises DataError where none are known."""


def has_openings(spoken: str, known: Known = openings) -> bool:
    """Whether openings are known in a language.

    Args:
        spoken: The language.
        known: Who knows.
    """
    try:
        known(spoken)
    except DataError:
        return False
    return True
