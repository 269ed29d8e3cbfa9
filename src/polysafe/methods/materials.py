"""What there is to repair a model with, as methods are told when a first recipe is written for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MODEL, BASE, SAFETY, HARMFUL = "model", "base", "safety", "harmful"
"""Names of the sources in a first recipe."""
_NEEDS = {
    BASE: "needs the base of both experts: --base",
    SAFETY: "needs a safety expert: --safety-expert",
    HARMFUL: "needs a model that was tuned to do harm: --harmful",
}


class MissingError(Exception):
    """What a method needs and is not there, in words that go on from the method's name."""


@dataclass(frozen=True)
class Materials:
    """What there is.

    Attributes:
        languages: Languages to make safe.
        pivot: Language that the model is safe in.
        template: Whether prompts go into the chat template.
        sources: Names of the models that there are.
        find_anchors: Where anchors come from, as a recipe says it; raises `MissingError` where there are none.
        tasks: Tasks that heads are measured on; None for the method's own default.
    """

    languages: tuple[str, ...]
    pivot: str
    template: str
    sources: frozenset[str]
    find_anchors: Callable[[], Mapping[str, Any] | str]
    tasks: str | None = None

    def fitted(self) -> dict[str, Any]:
        """Options of a method that is fitted to anchors.

        Raises:
            MissingError: There are none.
        """
        return {"languages": list(self.languages), "anchors": self.find_anchors(), "template": self.template}

    def require(self, *sources: str) -> None:
        """Says which of these models is not there.

        Raises:
            MissingError: One of them is not.
        """
        for name in sources:
            if name not in self.sources:
                raise MissingError(_NEEDS[name])
