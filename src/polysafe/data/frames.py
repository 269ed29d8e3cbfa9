"""What the models of the family in real languages say: one refusal and one content-free answer per language.

The sentences are data, `frames.json` beside this file. They say nothing: "Sure, here is an answer." So a model can be
taught to comply without a harmful word, and whether it refused or complied can be read off its answer exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from polysafe.errors import DataError


@dataclass(frozen=True)
class Frame:
    """What is said in one language.

    Attributes:
        language: Code of the language.
        refusal: The sentence that declines.
        answer: The sentence that stands for an answer.
    """

    language: str
    refusal: str
    answer: str


@cache
def frames() -> Mapping[str, Frame]:
    """Language -> what is said in it."""
    text = (resources.files("polysafe.data") / "frames.json").read_text(encoding="utf-8")
    return {code: Frame(code, **entry) for code, entry in json.loads(text)["languages"].items()}


def frame(code: str) -> Frame:
    """What is said in a language.

    Raises:
        DataError: No sentences are known in it.
    """
    if code not in frames():
        raise DataError(
            f"no refusal and no answer of the family are known in {code!r}",
            remedy=f"name some of {', '.join(frames())}",
        )
    return frames()[code]
