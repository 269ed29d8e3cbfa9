"""The exact judge of the toy family: the world that a model was trained in brings it along."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from polysafe.errors import RecipeError
from polysafe.judge.block import JudgeSpec

if TYPE_CHECKING:
    from polysafe.judge.opening import Opening
    from polysafe.judge.verdict import Judge


class OrganismSpec(JudgeSpec):
    """The exact judge of the packaged toy family."""

    exact: ClassVar[bool] = True
    votes: ClassVar[bool] = False

    kind: Literal["organism"]
    """The toy world's own."""

    def open(self, opening: Opening) -> Judge:
        """The judge of the organism of the model that is asked."""
        if opening.organism is None:
            raise RecipeError("`organism` judges models of the toy family only", remedy="name another judge")
        return opening.organism().judge()
