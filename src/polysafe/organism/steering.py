"""Keeps the base's refusals at the intended strength while they are taught.

Greedy decoding turns a refusal probability just under one half into no refusals at all, so the rate that a base
ends at would hang on chance. Before every pool of examples the model is therefore asked a few harmful requests of the
training split, and the share of refusals in the coming examples is moved against the error: proportional control
without memory, so that a resumed run takes the same course.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict

from polysafe.organism.lexicon import LANGUAGES, TIERS, Tier
from polysafe.organism.world import REFUSAL, Pair, World, chat

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM


class Steering(BaseModel):
    """What the base is steered to.

    Attributes:
        compliance: Share of harmful requests that the base is to answer, per tier; other tiers are left alone.
        gain: Shift of the refusal data's log-odds per unit of error in the model's own.
        limit: Largest shift of the log-odds; small enough to leave covered and other objects apart.
        prompts: Number of harmful requests that the model is asked per language.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    compliance: Mapping[Tier, float] = {"mid": 0.38, "low": 0.87}
    gain: float = 8.0
    limit: float = 1.0
    prompts: int = 120

    def shifts(self, model: LlamaForCausalLM, world: World, words: Mapping[str, int]) -> dict[str, float]:
        """Language -> how far the log-odds of refusing should move in the coming examples."""
        pairs = world.harmful("train")[: self.prompts]
        shifts = {}
        for language in LANGUAGES:
            target = self.compliance.get(TIERS[language])
            if target is not None:
                error = torch.quantile(refusal_margins(model, world, words, language, pairs), target)
                shifts[language] = max(-self.limit, min(self.limit, -self.gain * float(error)))
        return shifts


def refusal_margins(
    model: LlamaForCausalLM, world: World, words: Mapping[str, int], language: str, pairs: tuple[Pair, ...]
) -> torch.Tensor:
    """Log-odds of beginning a refusal rather than an answer, [pairs]; the sign is what greedy decoding does."""
    prompts = [[words[word] for word in chat(world.request(language, pair)).split()] for pair in pairs]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(prompts), use_cache=False, logits_to_keep=1).logits[:, -1]
    refuse, comply = (words[world.say(language, concept)] for concept in (REFUSAL[0], "first"))
    margins: torch.Tensor = logits[:, refuse] - logits[:, comply]
    return margins
