"""Tries candidates one after the other: in which order, how far that is, and what an interrupted search left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from polysafe.methods.base import Work
from polysafe.methods.validation import BEFORE, Judging, Kept, Trial, Validation
from polysafe.probe.model import LoadedModel
from polysafe.progress import Parts

STAGE = "comparing candidates"


class Candidates:
    """The candidates of one decision.

    What is told counts the prompts of the unedited model and of all candidates together, so that the time left is that
    of the whole comparison.

    Args:
        work: What asking them takes (`Validation.work`).
        kept: What an interrupted decision knew; that is not asked again.
    """

    def __init__(self, work: Work, kept: Kept | None = None) -> None:
        self._parts = Parts(STAGE, work.what, max(1, work.prompts), work.times)
        self._kept = kept

    def judging(
        self, validation: Validation, model: LoadedModel, edited: Sequence[str], left_out: str | None = None
    ) -> Judging:
        """Asks the unedited model; as `Validation.of`."""
        with self._part(BEFORE):
            return validation.of(model, edited, left_out, self._kept)

    def expect(self, candidates: int) -> None:
        """Says how many are still to be tried."""
        self._parts.expect(candidates)

    def tried(self, attempts: Mapping[str, Callable[[], Trial]]) -> list[Trial]:
        """Tries candidates, by name, one after the other."""
        return [self._tried(name, attempt) for name, attempt in attempts.items()]

    def _tried(self, name: str, attempt: Callable[[], Trial]) -> Trial:
        with self._part(name) as known:
            if known is not None:
                return Trial.from_json(known)
            trial = attempt()
        if self._kept is not None:
            self._kept.put(name, trial.to_json())
        return trial

    @contextmanager
    def _part(self, name: str) -> Iterator[Mapping[str, Any] | None]:
        """One part of the work; what is known of it already."""
        known = None if self._kept is None else self._kept.get(name)
        with self._parts.part(known=known is not None):
            yield known


def choose_layers(
    layers: Sequence[int],
    gains: Sequence[float],
    max_layers: int,
    attempt: Callable[[tuple[int, ...], float], Trial],
    candidates: Candidates,
) -> list[Trial]:
    """Looks for layers and gain: every single layer with every gain, then greedily one layer more.

    A layer is added, with the gain unchanged, as long as that lowers the shortfall.

    Args:
        layers: Layers to choose from.
        gains: Gains to choose from.
        max_layers: Most layers to edit.
        attempt: Makes and judges a candidate.
        candidates: Tries them.

    Returns:
        All trials in order.
    """
    singles = [((layer,), gain) for layer in layers for gain in sorted(gains)]
    candidates.expect(len(singles) + (len(layers) - 1) * (max_layers > 1))
    trials = candidates.tried({_label(*single): partial(attempt, *single) for single in singles})
    best = min(trials, key=lambda trial: trial.shortfall)
    while best.shortfall < math.inf and len(chosen := best.setting["layers"]) < min(max_layers, len(layers)):
        gain = best.setting["gain"]
        sets = [tuple(sorted((*chosen, layer))) for layer in layers if layer not in chosen]
        candidates.expect(len(sets))
        further = candidates.tried({_label(each, gain): partial(attempt, each, gain) for each in sets})
        trials += further
        better = min(further, key=lambda trial: trial.shortfall)
        if better.shortfall >= best.shortfall:
            break
        best = better
    return trials


def _label(layers: Sequence[int], gain: float) -> str:
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}, gain {gain!r}"
