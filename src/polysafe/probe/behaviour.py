"""What a model is inclined to do with prompts, as numbers that have gradients: refusals, and the answers that it gave.

Two questions are asked of a prompt. Of refusal: the log-odds of beginning with one of its language's refusals rather
than with compliance, as `probe.refusal` has them. Of an answer that is given: its mean log-probability per token, in
nats. Prompts are tokenized once, and read again after every change of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from polysafe.data.openings import Openings
from polysafe.probe.continuations import Ask, Continuations
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import Template
from polysafe.progress import tell

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASKED = "questions"
"""The stage by which reading tells how many questions are answered."""

Values = dict[tuple[str, str], dict[str, float]]
"""(language, what is asked) -> prompt -> its number."""


@dataclass(frozen=True, slots=True)
class Question:
    """One number that is asked of a prompt.

    Attributes:
        language: Language of the prompt.
        about: What is asked, a name that the asker chooses.
        prompt: Name of the prompt, the same in all languages.
        text: The prompt.
        answers: Refusals and then compliances; or the one answer whose probability is asked.
        refusals: How many of the answers are refusals; 0 for one answer that is given.
    """

    language: str
    about: str
    prompt: str
    text: str
    answers: tuple[str, ...]
    refusals: int = 0

    @property
    def ask(self) -> Ask:
        """As `Continuations` takes it."""
        return self.text, self.answers

    def value(self, per_token: torch.Tensor) -> torch.Tensor:
        """Its number, from the mean log-probability per token of every answer, [answers]."""
        wide = per_token.to(torch.float64)
        if not self.refusals:
            return wide.mean()
        return _log_mean_exp(wide[: self.refusals]) - _log_mean_exp(wide[self.refusals :])


def refusal_question(language: str, about: str, prompt: str, text: str, known: Openings) -> Question:
    """Whether a prompt is refused, by the openings of its language."""
    return Question(language, about, prompt, text, (*known.refusal, *known.compliance), len(known.refusal))


class Behaviours:
    """Questions, put to a model as often as its weights change.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        questions: What is asked; what does not fit the model's positions is left out.
        template: Whether prompts go into the chat template.

    Raises:
        DataError: A prompt or an answer has no token.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokenizer: PreTrainedTokenizerBase,
        questions: Sequence[Question],
        *,
        template: Template = "chat",
    ) -> None:
        self._questions = tuple(questions)
        self._scores = Continuations(model, tokenizer, template=template)
        self._prepared = self._scores.prepare([question.ask for question in self._questions])

    def __len__(self) -> int:
        return len(self._prepared.groups)

    def read(self) -> Values:
        """The number of every question, as the weights are now; NaN or infinite where they are broken.

        Raises:
            ResourceError: A single prompt does not fit the device.
        """
        found: Values = {}
        for done, (place, scores) in enumerate(self._scores.run(self._prepared), start=1):
            question = self._questions[place]
            means = torch.tensor([each.total / each.tokens for each in scores], dtype=torch.float64)
            found.setdefault((question.language, question.about), {})[question.prompt] = float(question.value(means))
            tell(ASKED, done, len(self))
        return found

    def each(self) -> Iterator[tuple[Question, torch.Tensor]]:
        """Every question with its number, one at a time, as a tensor that a gradient can be taken of.

        Raises:
            ArchitectureError: The model keeps no keys and values that can be repeated.
        """
        for done, (place, per_token) in enumerate(self._scores.per_token(self._prepared), start=1):
            question = self._questions[place]
            yield question, question.value(per_token)
            tell(ASKED, done, len(self))


def changes(before: Values, after: Values) -> Values:
    """After minus before, question by question; NaN where a number is missing."""
    return {
        cell: {prompt: after.get(cell, {}).get(prompt, math.nan) - value for prompt, value in items.items()}
        for cell, items in before.items()
    }


def _log_mean_exp(values: torch.Tensor) -> torch.Tensor:
    return values.logsumexp(0) - math.log(len(values))
