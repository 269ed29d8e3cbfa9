"""The measuring behind a choice: every block alone on one part of the anchors, the chosen ones on both parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from polysafe.checkpoint.opened import Source
from polysafe.data.anchors import Anchors
from polysafe.errors import DataError
from polysafe.methods.behaviour_swap.block_effects import Blocks, exact_effect, first_order_effects, swapped
from polysafe.methods.behaviour_swap.choice import Choice, Chooser, Limits, Measured, finite
from polysafe.methods.behaviour_swap.questions import Asking
from polysafe.methods.constraints import REFUSED
from polysafe.methods.validation import BEFORE, Kept, remembered
from polysafe.probe.behaviour import ASKED, Behaviours, Values, changes
from polysafe.probe.model import LoadedModel
from polysafe.progress import Parts

STAGE = "measuring blocks"
GRADIENTS = "gradients"


@dataclass(frozen=True)
class Found:
    """What was measured and chosen.

    Attributes:
        choice: The blocks that are taken, and why the others are not.
        fitted: Number of harmful anchors per language that blocks were measured on.
    """

    choice: Choice
    fitted: int

    @property
    def nothing(self) -> str:
        """Why nothing is taken, in words; empty where something is."""
        reasons = Counter(self.choice.why.values())
        return "" if self.choice.taken else "; ".join(f"{reason} ({n} blocks)" for reason, n in reasons.most_common())

    def plain(self) -> dict[str, Any]:
        """For the evidence of an edit."""
        choice = self.choice
        singles = {name: {**each.plain(), "why": choice.why[name]} for name, each in choice.singles.items()}
        ranked = sorted(singles, key=lambda name: (singles[name]["gain"] is None, -(singles[name]["gain"] or 0.0)))
        return {
            "ranking": {name: singles[name]["gain"] for name in ranked},
            "effects": singles,
            "joint": None if choice.joint is None else choice.joint.plain(),
            "sum_of_gains": finite(choice.sum),
            "additive": choice.additive,
            "held_out": None if choice.held_out is None else choice.held_out.plain(),
            "anchors": {"harmful": self.fitted},
        }


@dataclass(frozen=True)
class Study:
    """Measures the blocks of one pair of experts.

    Attributes:
        model: The language expert.
        donor: The safety expert.
        blocks: Block -> its tensors.
        anchors: Harmful and harmless prompts.
        held_out: Share of them that blocks are not chosen by.
        asking: How questions are made of them.
        limits: What the choice is for, and what it may cost.
        budget: Most blocks.
        points: Points of the path for first-order effects; None for exact ones.
        stepwise: Whether blocks are measured again after every one that is taken.
    """

    model: LoadedModel
    donor: Source
    blocks: Blocks
    anchors: Anchors
    held_out: float
    asking: Asking
    limits: Limits
    budget: int | None
    points: int | None
    stepwise: bool

    def run(self, kept: Kept | None = None) -> Found:
        """Measures and chooses.

        Raises:
            PolysafeError: As for `BehaviourSwap.fit_with`.
        """
        fitted, held_out = self._parts()
        asked = self.asking.of(self.model, fitted)
        before = _known(kept, BEFORE, asked.read)
        effects = self.exact(asked, before, kept) if self.points is None else self.first_order(asked, self.points, kept)
        again = self.asking.of(self.model, held_out)
        ahead = again.read()

        def joint(names: Sequence[str]) -> tuple[Measured, Measured]:
            tensors = [tensor for name in names for tensor in self.blocks[name]]
            parts = ((asked, before), (again, ahead))
            with swapped(self.model, self.donor, tensors):
                moved = [changes(values, each.read()) for each, values in parts]
            return self.limits.measured(before, moved[0]), self.limits.measured(ahead, moved[1])

        def together(names: Sequence[str]) -> Values:
            tensors = [tensor for name in names for tensor in self.blocks[name]]
            measure = partial(exact_effect, self.model, self.donor, tensors, asked, before)
            return _known(kept, " + ".join(names), measure)

        chooser = Chooser(self.limits, before, effects, self.budget)
        choice = chooser.choose(joint, together if self.stepwise else None)
        return Found(choice, len(before[self.limits.languages[0], REFUSED]))

    def exact(self, asked: Behaviours, before: Values, kept: Kept | None = None) -> dict[str, Values]:
        """What every block does alone."""
        parts, found = Parts(STAGE, ASKED, len(asked), len(self.blocks)), {}
        for name, tensors in self.blocks.items():
            with parts.part():
                measure = partial(exact_effect, self.model, self.donor, tensors, asked, before)
                found[name] = _known(kept, name, measure)
        return found

    def first_order(self, asked: Behaviours, points: int, kept: Kept | None = None) -> dict[str, Values]:
        """What every block would do if all were linear."""
        made: dict[str, dict[str, Values]] = {}

        def of(name: str) -> Values:
            if not made:
                made["all"] = first_order_effects(self.model, self.donor, self.blocks, asked, points)
            return made["all"][name]

        return {name: _known(kept, f"{GRADIENTS} {name}", partial(of, name)) for name in self.blocks}

    def _parts(self) -> tuple[Anchors, Anchors]:
        """Anchors to choose by, and those that confirm it."""
        harmful, harmless = (rows.split(self.held_out) for rows in (self.anchors.harmful, self.anchors.harmless))
        for rows in (*harmful, *harmless):
            if len(rows) < 2:
                raise DataError(
                    f"{len(rows)} of the anchors are left in one of their parts; two are needed",
                    where=rows.origin or None,
                    remedy="give more anchors, or change `held_out`",
                )
        return Anchors(harmful[0], harmless[0]), Anchors(harmful[1], harmless[1])


def _known(kept: Kept | None, name: str, make: Callable[[], Values]) -> Values:
    """Numbers that an interrupted decision knew, or that are made now."""

    def plain() -> list[Any]:
        return [[*cell, {prompt: finite(value) for prompt, value in items.items()}] for cell, items in make().items()]

    rows = remembered(kept, name, plain)
    return {
        (language, about): {prompt: math.nan if value is None else value for prompt, value in items.items()}
        for language, about, items in rows
    }
