"""The tokens that all prompts of a batch begin with, run once instead of once for each.

The instructions of a judge, a system message or the template of an attack stand before every prompt, and are often
longer than it. Their keys and values are the same in every row, up to the rounding of the forward pass. Behind them the
shorter prompts are padded, and whether a model minds padding in the middle is not told from its name (a window or a
bias may count columns): logits of the longest and the shortest prompt are compared with those of whole passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from polysafe.probe.caches import Caches
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import Batch, RenderedPrompts

if TYPE_CHECKING:
    from transformers import DynamicCache

LEAST = 16
"""Tokens that are worth it."""
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
"""How much logits may differ, as a share of the largest."""
_COARSE = 0.05
"""The same in types of 16 bits."""


class SharedPrefix:
    """Runs beginnings of prompts and keeps the last one, for batches that begin alike.

    Args:
        model: The model.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model, self._caches = model, Caches(model)
        self._tokens: tuple[int, ...] = ()
        self._kept: DynamicCache | None = None
        self._compared = 0
        self._differs = False

    def of(self, prompts: RenderedPrompts, indices: Sequence[int]) -> int:
        """How many tokens at the beginning of some prompts can be run once: none, or fewer than any of them has."""
        rows = [prompts.tokens[index] for index in indices]
        shortest, longest = min(map(len, rows)), max(map(len, rows))
        shared = _shared(min(rows), max(rows))[: shortest - 1]
        if len(rows) < 2 or len(shared) < LEAST or self._differs or not self._caches.whole:
            return 0
        self._run(shared)
        if shortest < longest and longest > self._compared:
            ends = sorted(indices, key=lambda index: len(prompts.tokens[index]))
            self._compared, self._differs = longest, not self._alike(prompts, [ends[-1], ends[0]])
        return 0 if self._differs else len(shared)

    def options(self, rows: int) -> Mapping[str, DynamicCache]:
        """What a model is called with to go on from the beginning that `of` found last, for so many prompts."""
        found = deepcopy(self._kept)
        assert found is not None
        found.batch_repeat_interleave(rows)
        return {self._caches.name: found}

    def _run(self, tokens: tuple[int, ...]) -> None:
        if tokens != self._tokens:
            kept, ids = self._caches.new(), torch.tensor([tokens], device=self.model.device)
            with torch.inference_mode():
                self.model.model(input_ids=ids, use_cache=True, **{self._caches.name: kept})
            self._tokens, self._kept = tokens, kept

    def _alike(self, prompts: RenderedPrompts, indices: Sequence[int]) -> bool:
        """Whether prompts that go on from the beginning end in the same logits as whole ones."""
        begun = prompts.batch(indices, shared=len(self._tokens))
        later = self._last(begun, len(self._tokens), **self.options(len(indices)))
        whole = self._last(prompts.batch(indices), 0)
        rounding = _ROUNDING.get(whole.dtype, _COARSE)
        return bool((later - whole).abs().max() <= rounding * whole.abs().max())

    def _last(self, batch: Batch, first: int, **options: Any) -> torch.Tensor:
        """Logits after every prompt, [prompts, vocabulary], of a pass over all but its first columns."""
        batch = batch.to(self.model.device)
        if self._caches.takes_positions:
            options["position_ids"] = batch.position_ids[:, first:]
        with torch.inference_mode():
            found = self.model.model(
                input_ids=batch.input_ids[:, first:], attention_mask=batch.attention_mask, use_cache=True, **options
            )
        logits: torch.Tensor = found.logits[:, -1]
        return logits


def _shared(first: tuple[int, ...], last: tuple[int, ...]) -> tuple[int, ...]:
    """What the first and the last of sorted rows begin with, and so all between them."""
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((place for place, (one, other) in pairs if one != other), len(first))]
