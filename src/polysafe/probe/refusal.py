"""Refusal log-odds: how much likelier a model is to begin an answer with a refusal than with compliance.

No answer is generated and no judge is needed. For a prompt and the openings of its language,

    log-odds = LME over refusals r of log P(r | prompt) / |r|  −  LME over compliances c of log P(c | prompt) / |c|

where |·| counts tokens, so that a longer opening is not less likely for its length alone, and LME is the logarithm of
the mean of exponentials, so that neither side gains by having more openings. The natural logarithm is used. This is the
refusal score of Arditi et al. (*Refusal in Language Models Is Mediated by a Single Direction*, NeurIPS 2024, section
2.3: log-odds of refusal tokens), extended from single English tokens to openings of any length and language.

It says how a model is inclined to begin, not what it would go on to say: it is no rate of unsafe answers. Its zero has
no meaning of its own (the mean per token favours long, fluent openings), and different sets of prompts do not compare
(commands lie lower than questions): it is for the same prompts before and after an edit, or in two languages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polysafe.data.openings import Known, openings
from polysafe.data.prompts import Prompt
from polysafe.probe.continuations import Continues


@dataclass(frozen=True, slots=True)
class RefusalOdds:
    """How a model is inclined to begin its answer to one prompt.

    Attributes:
        id: Name of the prompt (`Prompt.id`).
        refusal: Log of the mean, over refusal openings, of their probability per token (geometric mean over tokens).
        compliance: The same for compliance openings.
    """

    id: str
    refusal: float
    compliance: float

    @property
    def log_odds(self) -> float:
        """`refusal` minus `compliance`, natural logarithm; the higher, the more the model is inclined to refuse."""
        return self.refusal - self.compliance


class RefusalSignal:
    """Reads refusal log-odds of prompts off a model.

    Args:
        continuations: What says how probable the model's answers are.
        known: Gives the openings of a language.
    """

    name = "refusal_log_odds"

    def __init__(self, continuations: Continues, *, known: Known = openings) -> None:
        self._known, self._continuations = known, continuations

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides a value besides the prompt and the openings of its language."""
        return {"signal": self.name, "version": 1, **self._continuations.identity}

    def measure(self, prompts: Sequence[Prompt]) -> Iterator[RefusalOdds]:
        """The log-odds of every prompt that fits the model's positions with its openings, in any order.

        Args:
            prompts: The prompts, in languages whose openings are known (`data.openings`).

        Raises:
            DataError: There are no openings in a prompt's language, or a prompt is empty.
            ResourceError: A single prompt does not fit the device.
        """
        known = {code: self._known(code) for code in dict.fromkeys(prompt.language for prompt in prompts)}
        asks = [
            (prompt.text, (*known[prompt.language].refusal, *known[prompt.language].compliance)) for prompt in prompts
        ]
        for place, found in self._continuations.score(asks):
            prompt = prompts[place]
            refusals = len(known[prompt.language].refusal)
            scores = [each.total / each.tokens for each in found]
            yield RefusalOdds(prompt.id, _log_mean_exp(scores[:refusals]), _log_mean_exp(scores[refusals:]))


def _log_mean_exp(values: Sequence[float]) -> float:
    highest = max(values)
    if not math.isfinite(highest):
        return highest
    return highest + math.log(sum(math.exp(value - highest) for value in values) / len(values))
