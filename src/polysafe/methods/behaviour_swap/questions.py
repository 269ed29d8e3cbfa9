"""What the language expert is asked before and after a block is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from polysafe.data.anchors import Anchors, ParallelPrompts
from polysafe.data.openings import Openings
from polysafe.errors import DataError
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.methods.constraints import OVER_REFUSAL, REFUSED
from polysafe.probe.behaviour import Behaviours, Question, refusal_question
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import Template, load_tokenizer

BENIGN = "benign"
"""Mean log-probability per token of the model's own answer to a harmless prompt."""


@dataclass(frozen=True)
class Asking:
    """How questions are made of anchors.

    Attributes:
        languages: Languages that are asked in.
        openings: Gives the openings of a language.
        template: Whether prompts go into the chat template.
        max_tokens: Most tokens of an answer to a harmless prompt.
        most: Most harmful and most harmless prompts.
    """

    languages: Sequence[str]
    openings: Callable[[str], Openings]
    template: Template
    max_tokens: int
    most: int

    def of(self, model: LoadedModel, anchors: Anchors) -> Behaviours:
        """The questions, put to a model; its own greedy answers to harmless prompts are taken now.

        Raises:
            DataError: There are no openings in a language, or it answers no harmless prompt.
        """
        tokenizer = load_tokenizer(model.source.checkpoint.root)
        harmful, harmless = (spread(rows, self.most) for rows in (anchors.harmful, anchors.harmless))
        sampling = Sampling(max_tokens=self.max_tokens)
        generator = LocalGenerator(model, tokenizer, sampling, template=self.template, unreadable="empty")
        asked = [
            *self._refusals(harmful, REFUSED),
            *self._refusals(harmless, OVER_REFUSAL),
            *self._answers(harmless, generator),
        ]
        return Behaviours(model, tokenizer, asked, template=self.template)

    def _refusals(self, rows: ParallelPrompts, about: str) -> Iterator[Question]:
        for language in self.languages:
            known = self.openings(language)
            for name, text in rows.prompts(language).items():
                yield refusal_question(language, about, name, text, known)

    def _answers(self, rows: ParallelPrompts, generator: LocalGenerator) -> Iterator[Question]:
        for language in self.languages:
            texts = rows.prompts(language)
            answers = {each.id: each.text for each in generator.generate([Ask(*item) for item in texts.items()])}
            found = [
                Question(language, BENIGN, name, text, (answers[name],))
                for name, text in texts.items()
                if answers[name].strip()
            ]
            if not found:
                raise DataError(
                    f"the language expert answers no harmless prompt in {language!r}",
                    where=rows.origin or None,
                    remedy="check its chat template, or set `template: raw`",
                )
            yield from found


def spread(rows: ParallelPrompts, most: int) -> ParallelPrompts:
    """At most so many rows, evenly over the set, whose parts may differ."""
    if len(rows) <= most:
        return rows
    return rows.select([place * len(rows) // most for place in range(most)])
