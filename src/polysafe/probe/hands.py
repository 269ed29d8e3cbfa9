"""Who measures what is measured prompt by prompt or batch by batch: this process, or others that hold the same model.

Methods pass nothing on: within `with measured_by(hands):` activations are recorded and the effects of heads measured by
these hands, if they can have the model; an edited model, which exists in this process alone, is measured here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from polysafe.probe.forward import Pooling, Recorder
from polysafe.probe.scorers import LayerScorer, RowScorer

if TYPE_CHECKING:
    import torch

    from polysafe.probe.answers import Score, ScoredPrompt
    from polysafe.probe.model import LoadedModel
    from polysafe.probe.render import RenderedPrompts, Side
    from polysafe.probe.residual import Residuals

Together = Sequence[tuple["RenderedPrompts", Sequence[int]]]
"""Batches that belong together: prompts and, where they have them, their pairs; and which of them."""
Pooled = tuple[Mapping[int, "torch.Tensor"], ...]
"""What is recorded of each: layer -> [prompts, width]."""


class Hands(Protocol):
    """Somebody who has the model."""

    def scores(
        self, model: LoadedModel, prompts: Sequence[ScoredPrompt], *, means: torch.Tensor, score: Score, by_rows: bool
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(place of a prompt, scores of its run without a patch and of those with one) as soon as they are there.

        Args:
            model: The model.
            prompts: The prompts.
            means: What replaces the heads' outputs, [layers, heads, size].
            score: What is compared.
            by_rows: Whether all runs of a prompt are rows of one pass (`RowScorer`).
        """

    def rows(
        self,
        model: LoadedModel,
        batches: Sequence[Together],
        *,
        places: Mapping[int, str],
        pooling: Pooling,
        side: Side,
        after: Residuals | None = None,
        keep: Residuals | None = None,
    ) -> Generator[tuple[int, Pooled]]:
        """(place of a batch, its pooled activations) in order, so that sums of them are the same whoever records.

        Args:
            model: The model.
            batches: The batches, each of which is run as it is.
            places: Layer -> name of the module whose first input is recorded.
            pooling: How the tokens of a prompt become one row.
            side: Where padding goes.
            after: Where passes may go on from.
            keep: May be given the states that enter its layer; what it is not given is computed when it is needed.
        """


class Here:
    """This process, one prompt after the other."""

    def scores(
        self, model: LoadedModel, prompts: Sequence[ScoredPrompt], *, means: torch.Tensor, score: Score, by_rows: bool
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """As for `Hands`."""
        if not by_rows:
            layers = LayerScorer(model, means)
            yield from ((place, layers.scores(prompt, score)) for place, prompt in enumerate(prompts))
            return
        with RowScorer(model, means) as rows:
            yield from ((place, rows.scores(prompt, score)) for place, prompt in enumerate(prompts))

    def rows(
        self,
        model: LoadedModel,
        batches: Sequence[Together],
        *,
        places: Mapping[int, str],
        pooling: Pooling,
        side: Side,
        after: Residuals | None = None,
        keep: Residuals | None = None,
    ) -> Generator[tuple[int, Pooled]]:
        """As for `Hands`."""
        with Recorder(model, places, pooling, side, after=after, keep=keep) as recorder:
            for place, together in enumerate(batches):
                yield place, tuple(recorder.rows(prompts, indices) for prompts, indices in together)


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
