"""Who measures what is measured prompt by prompt: this process, or others that hold the same model.

Methods pass nothing on: within `with measured_by(hands):` the effects of heads are measured by these hands, if they can
have the model; an edited model, which exists in this process alone, is measured here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from polysafe.probe.scorers import LayerScorer, RowScorer

if TYPE_CHECKING:
    import torch

    from polysafe.probe.answers import Score, ScoredPrompt
    from polysafe.probe.model import LoadedModel


class Hands(Protocol):
    """Somebody who has the model."""

    def scores(
        self,
        model: LoadedModel,
        means: torch.Tensor,
        prompts: Sequence[ScoredPrompt],
        score: Score,
        *,
        by_rows: bool,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(place of a prompt, scores of its run without a patch and of those with one) as soon as they are there.

        Args:
            model: The model.
            means: What replaces the heads' outputs, [layers, heads, size].
            prompts: The prompts.
            score: What is compared.
            by_rows: Whether all runs of a prompt are rows of one pass (`RowScorer`).
        """


class Here:
    """This process, one prompt after the other."""

    def scores(
        self,
        model: LoadedModel,
        means: torch.Tensor,
        prompts: Sequence[ScoredPrompt],
        score: Score,
        *,
        by_rows: bool,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """As for `Hands`."""
        if not by_rows:
            layers = LayerScorer(model, means)
            yield from ((place, layers.scores(prompt, score)) for place, prompt in enumerate(prompts))
            return
        with RowScorer(model, means) as rows:
            yield from ((place, rows.scores(prompt, score)) for place, prompt in enumerate(prompts))


_hands: ContextVar[Hands | None] = ContextVar("hands", default=None)


@contextmanager
def measured_by(hands: Hands) -> Iterator[None]:
    """Within it, what is measured prompt by prompt is measured by these hands."""
    token = _hands.set(hands)
    try:
        yield
    finally:
        _hands.reset(token)


def hands_for(model: LoadedModel) -> Hands:
    """Who measures a model."""
    found = _hands.get()
    return Here() if found is None or model.changed else found
