"""Which blocks to take: those that are shown to raise refusals, as long as what they cost together is allowed.

A block may be taken if the lower end of the paired interval of its gain is above 0, at 95 % for all blocks together
(Bonferroni), and if what it costs is within the limits by itself. Of these the highest gains are taken first, as long
as the limits hold for the sum of what the blocks taken do alone. Then the joint effect is measured, on the prompts that
the choice was made by and on held-out ones, and as long as it breaks a limit or shows no gain on either, the block of
the smallest gain goes back. To take nothing is an answer.

Stepwise, what a block adds is measured again after every block that is taken, with those in place: blocks that do
nothing alone, or harm, may do much together.

Gain: rise of refusal log-odds of harmful prompts, a mean over the languages that the edit is for, paired by prompt.
Costs, each in every language: loss of log-probability per token of the expert's own answers to harmless prompts; rise
of their over-refusal, read from the tail of their refusal log-odds (`constraints`); and in guarded languages refusals
that are shown to be lost. As there, a cost is what is seen and not what could be shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from polysafe.methods.behaviour_swap.questions import BENIGN
from polysafe.methods.constraints import OVER_REFUSAL, REFUSED, rate_change
from polysafe.probe.behaviour import Values, changes
from polysafe.stats.means import student_interval

LEVEL = 0.95


@dataclass(frozen=True)
class Limits:
    """What a choice is for, and what it may cost.

    Attributes:
        languages: Languages that are to refuse more.
        guarded: Languages that are not to lose by it.
        benign_loss: Most log-probability per token that harmless answers may lose, nats.
        over_refusal: Largest rise of the share of harmless prompts in the tail, 0 … 1.
    """

    languages: Sequence[str]
    guarded: Sequence[str]
    benign_loss: float
    over_refusal: float

    def measured(self, before: Values, moved: Values, level: float = LEVEL) -> Measured:
        """What some blocks do, from the numbers before and their changes.

        Args:
            before: The numbers of the language expert.
            moved: What changes.
            level: Level of the interval of the gain.
        """
        cells = [(language, REFUSED) for language in self.languages]
        gains = [fmean(moved[cell][prompt] for cell in cells) for prompt in _shared([moved[cell] for cell in cells])]
        low, high = _interval(gains, level)
        asked = (*self.languages, *self.guarded)
        return Measured(
            gain=fmean(gains) if gains else math.nan,
            low=low,
            high=high,
            n=len(gains),
            costs={name: dict(self._costs(before, moved, name)) for name in asked},
            objections=tuple(self._objections(before, moved, asked)),
        )

    def _costs(self, before: Values, moved: Values, language: str) -> Iterator[tuple[str, float]]:
        yield BENIGN, fmean(moved[language, BENIGN].values())
        yield OVER_REFUSAL, _tail_rise(before, moved, language)
        yield REFUSED, fmean(moved[language, REFUSED].values())

    def _objections(self, before: Values, moved: Values, asked: Sequence[str]) -> Iterator[str]:
        for name in asked:
            loss = -fmean(moved[name, BENIGN].values())
            if not loss <= self.benign_loss:
                yield f"harmless answers in {name} lose {loss:.3f} nats per token"
            if not (rise := _tail_rise(before, moved, name)) <= self.over_refusal:
                yield f"over-refusal in {name} rises by {100 * rise:.1f} points"
        for name in self.guarded:
            if _interval(list(moved[name, REFUSED].values()), LEVEL)[1] < 0:
                yield f"refusals in {name} are lost"


@dataclass(frozen=True)
class Measured:
    """What some blocks do.

    Attributes:
        gain: Mean rise of refusal log-odds of harmful prompts; NaN where the model is broken.
        low: Lower end of its interval; −∞ where there is none.
        high: Upper end of it.
        n: Number of prompts.
        costs: Language -> mean change of `benign` and `refused`, and rise of `over_refusal`.
        objections: Limits that are broken, in words.
    """

    gain: float
    low: float
    high: float
    n: int
    costs: Mapping[str, Mapping[str, float]]
    objections: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """Whether there is a gain."""
        return self.low > 0

    def plain(self) -> dict[str, Any]:
        """In values that JSON can hold."""
        return {
            **{name: finite(getattr(self, name)) for name in ("gain", "low", "high")},
            "n": self.n,
            "costs": {name: {key: finite(value) for key, value in each.items()} for name, each in self.costs.items()},
            "objections": list(self.objections),
        }


@dataclass(frozen=True)
class Choice:
    """The blocks that are taken.

    Attributes:
        taken: Their names, highest gain first.
        singles: Block -> what it does alone.
        joint: What they do together, or what the last did that went back; None where none was fit to be tried.
        held_out: The same on held-out prompts.
        why: Block -> why it is taken or not.
    """

    taken: tuple[str, ...]
    singles: Mapping[str, Measured]
    joint: Measured | None
    held_out: Measured | None
    why: Mapping[str, str]

    @cached_property
    def sum(self) -> float:
        """Sum of the gains that the blocks taken have alone."""
        return math.fsum(self.singles[name].gain for name in self.taken)

    @property
    def additive(self) -> float | None:
        """Joint gain as a share of that sum: 1 if blocks do not interact; None where nothing is taken."""
        return finite(self.joint.gain / self.sum) if self.taken and self.joint is not None and self.sum else None


Joint = Callable[[Sequence[str]], tuple[Measured, Measured]]
"""What several blocks do together: on the prompts that blocks are chosen by, and on held-out ones."""


@dataclass(frozen=True)
class Chooser:
    """Chooses blocks.

    Attributes:
        limits: What the choice is for, and what it may cost.
        before: The numbers of the language expert.
        effects: Block -> what changes when it is moved.
        budget: Most blocks; None for no limit.
    """

    limits: Limits
    before: Values
    effects: Mapping[str, Values]
    budget: int | None

    def choose(self, joint: Joint, together: Callable[[Sequence[str]], Values] | None = None) -> Choice:
        """The blocks that are taken.

        Args:
            joint: Confirms a choice.
            together: For a stepwise choice: what changes when several blocks are moved.
        """
        singles = {name: self._measured(moved) for name, moved in self.effects.items()}
        why = {name: _unfit(each) for name, each in singles.items()}
        taken = self._by_sum(singles, why) if together is None else self._stepwise(together, why)
        last: tuple[Measured | None, Measured | None] = (None, None)
        while taken:
            last = found = joint(taken)
            problem = next(filter(None, map(_unfit, found)), "")
            if not problem:
                break
            why[taken.pop()] = f"went back: with those taken before, {problem}"
        why.update(dict.fromkeys(taken, "taken"))
        return Choice(tuple(taken), singles, last[0], last[1], why)

    def _measured(self, moved: Values) -> Measured:
        level = 1 - (1 - LEVEL) / max(1, len(self.effects))
        return self.limits.measured(self.before, moved, level)

    def _full(self, taken: Sequence[str]) -> bool:
        return self.budget is not None and len(taken) >= self.budget

    def _by_sum(self, singles: Mapping[str, Measured], why: dict[str, str]) -> list[str]:
        """Those of highest gain first, while the sum of what they do alone is allowed."""
        taken: list[str] = []
        for name in sorted((name for name, reason in why.items() if not reason), key=lambda name: -singles[name].gain):
            if self._full(taken):
                why[name] = "beyond the budget"
            elif self._measured(_sum([self.effects[each] for each in (*taken, name)])).objections:
                why[name] = "would cost too much together with those of higher gain"
            else:
                taken.append(name)
        return taken

    def _stepwise(self, together: Callable[[Sequence[str]], Values], why: dict[str, str]) -> list[str]:
        """One after the other that which adds most to those before it."""
        taken: list[str] = []
        reached = {cell: dict.fromkeys(items, 0.0) for cell, items in self.before.items()}
        while not self._full(taken):
            found: dict[str, tuple[float, Values]] = {}
            for name in (each for each in self.effects if each not in taken):
                moved = together((*taken, name)) if taken else self.effects[name]
                added = self._measured(changes(reached, moved))
                broken = self._measured(moved).objections
                reason = _unfit(replace(added, objections=broken))
                why[name] = reason or "beyond the budget"
                if not reason:
                    found[name] = (added.gain, moved)
            if not found:
                break
            taken.append(max(found, key=lambda name: found[name][0]))
            reached = found[taken[-1]][1]
        return taken


def finite(value: float) -> float | None:
    """The number, None where it is none."""
    return value if math.isfinite(value) else None


def _unfit(each: Measured) -> str:
    if not each.shown:
        return "raises no refusals" if each.gain <= 0 else "is not shown to raise refusals"
    return each.objections[0] if each.objections else ""


def _sum(effects: Sequence[Values]) -> Values:
    first, *others = effects
    return {
        cell: {prompt: value + sum(other[cell][prompt] for other in others) for prompt, value in items.items()}
        for cell, items in first.items()
    }


def _tail_rise(before: Values, moved: Values, language: str) -> float:
    cell = (language, OVER_REFUSAL)
    known, change = before[cell], moved[cell]
    if not all(map(math.isfinite, change.values())):
        return math.nan
    return rate_change(cell, known, {prompt: value + change[prompt] for prompt, value in known.items()}).difference


def _shared(cells: Sequence[Mapping[str, float]]) -> list[str]:
    first, *others = cells
    return [prompt for prompt in first if all(prompt in other for other in others)]


def _interval(values: Sequence[float], level: float) -> tuple[float, float]:
    span, _ = student_interval(values, level=level) if all(map(math.isfinite, values)) else (None, None)
    return (-math.inf, math.inf) if span is None else (span.low, span.high)
