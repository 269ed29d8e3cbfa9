"""What an edit does to harmless answers, in one forward pass: how far next tokens move, how likely answers stay.

The unedited model answers every harmless prompt once, greedily, for a few tokens. Any model is then read at those
tokens. Two figures come of it, each a mean over the tokens of an answer, in nats:

- **KL**, the divergence of the model's next token from the unedited model's, KL(unedited ‖ model). It is taken over the
  tokens that the unedited model finds likeliest and one class for all others: by the data-processing inequality a lower
  bound of the divergence over the whole vocabulary, which would take a gigabyte for a hundred prompts.
- **the log-probability** of the unedited model's own answer.

Neither says whether an answer is still right. Both are what they were for a model that is unchanged.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from polysafe.data.prompts import Prompt
from polysafe.errors import ResourceError
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.methods.constraints import ANSWERS, KL, Meter, Reading
from polysafe.methods.validation import PROMPTS, Kept, remembered
from polysafe.probe.batches import fitting_batches
from polysafe.probe.likelihood import ROWS, Scorer, tokens_of
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import Template, cached_tokenizer, render
from polysafe.progress import tell

ANSWERED = "harmless answers"
"""The name under which is kept what the unedited model answers."""
TOKENS = 8
"""Most tokens of an answer that are read."""
CLASSES = 256
"""Tokens that are told apart at each place, those that the unedited model finds likeliest; the others are one class."""


@dataclass(frozen=True)
class _Known:
    """What the unedited model says at the tokens of one answer.

    Attributes:
        likeliest: Its likeliest tokens, [tokens, classes].
        log_probability: Log-probability of each class and, last, of all other tokens, float32 [tokens, classes + 1].
    """

    likeliest: torch.Tensor
    log_probability: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor) -> _Known:
        """Of the logits before every token, [tokens, vocabulary]."""
        likeliest = logits.topk(min(CLASSES, logits.shape[-1]), dim=-1).indices
        return cls(likeliest, _classes(logits, likeliest))

    def divergence(self, logits: torch.Tensor) -> float:
        """Mean KL(unedited ‖ model) over the tokens, in nats."""
        theirs = _classes(logits, self.likeliest)
        mine = self.log_probability
        parts = torch.where(mine.isneginf(), 0.0, mine.exp() * (mine - theirs))
        return float(parts.sum(-1).mean())


def _classes(logits: torch.Tensor, likeliest: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of some tokens at each place, and of all the others together; float32 [tokens, classes + 1].

    The others are summed by themselves: as 1 minus the likeliest, what is left of a sure model would be rounding.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = wide.logsumexp(-1, keepdim=True)
    others = wide.scatter(-1, likeliest, -math.inf).logsumexp(-1, keepdim=True)
    return torch.cat([wide.gather(-1, likeliest), others], -1) - total


class HarmlessMeter:
    """Reads divergence and log-probability off harmless prompts; harmful ones are passed over.

    Args:
        prompts: The prompts.
        template: Whether they go into the chat template; that of the method that is validated.
    """

    def __init__(self, prompts: Sequence[Prompt], *, template: Template) -> None:
        self._prompts = [prompt for prompt in prompts if prompt.kind == "harmless"]
        self._template = template
        self.languages = tuple(dict.fromkeys(prompt.language for prompt in self._prompts))
        self.prompts = len(self._prompts)
        self.notes: tuple[str, ...] = ()
        self._asked: list[Prompt] = []
        self._answers: list[Sequence[int]] = []
        self._known: list[_Known] = []

    def prepare(self, model: LoadedModel, languages: Sequence[str], kept: Kept | None = None) -> None:
        """Lets the unedited model answer; prompts that it answers with nothing are left out.

        Args:
            model: The unedited model.
            languages: Languages that will be asked for.
            kept: Keeps its answers, by the names of prompts.
        """
        self._tokenizer = cached_tokenizer(model.source.checkpoint.root)
        asked = {prompt.id: prompt for prompt in self._prompts if prompt.language in languages}
        answers: dict[str, Sequence[int]] = remembered(kept, ANSWERED, lambda: self._answered(model, asked))
        if not answers:
            return
        rendered = render(self._tokenizer, {name: asked[name].text for name in answers}, template=self._template)
        order = sorted(
            range(len(rendered)), key=lambda place: -len(rendered.tokens[place]) - len(answers[rendered.ids[place]])
        )
        self._asked = [asked[rendered.ids[place]] for place in order]
        self._answers = [answers[rendered.ids[place]] for place in order]
        prompts = rendered.select(order)
        read = tuple((*ids, *answer[:-1]) for ids, answer in zip(prompts.tokens, self._answers, strict=True))
        self._inputs = replace(prompts, tokens=read)
        self._known = [_Known.of(logits) for _, logits in self._logits(model)]

    def _answered(self, model: LoadedModel, asked: Mapping[str, Prompt]) -> dict[str, list[int]]:
        """Tokens of the answers that are not empty, by the names of prompts."""
        generator = LocalGenerator(
            model, self._tokenizer, Sampling(max_tokens=TOKENS), template=self._template, unreadable="empty"
        )
        asks = [Ask(name, prompt.text) for name, prompt in asked.items()]
        return {answer.id: [*answer.token_ids] for answer in generator.generate(asks) if answer.token_ids}

    def read(self, model: LoadedModel, languages: Sequence[str]) -> Reading:
        """Divergence as `kl` and log-probability as `answers`, of the harmless prompts in some languages.

        Args:
            model: The unedited model that was prepared for, or an edited one.
            languages: Languages to read in, of those that were prepared for.
        """
        found: defaultdict[tuple[str, str], dict[str, float | bool]] = defaultdict(dict)
        for place, logits in self._logits(model):
            prompt = self._asked[place]
            if prompt.language not in languages:
                continue
            values = {KL: self._known[place].divergence(logits), ANSWERS: _likelihood(logits, self._answers[place])}
            for metric, value in values.items():
                if math.isfinite(value):
                    found[prompt.language, metric][f"{prompt.set}/{prompt.parallel}"] = value
        return dict(found)

    def _logits(self, model: LoadedModel) -> Iterator[tuple[int, torch.Tensor]]:
        """Place of a prompt, and the logits before every token of its answer, [tokens, vocabulary]."""
        if not self._asked:
            return
        scorer, done = Scorer(model, self._tokenizer, template=self._template), 0

        def work(batch: range) -> list[torch.Tensor]:
            kept = max(len(self._answers[place]) for place in batch)
            logits = scorer.logits(self._inputs, batch, kept)
            return [row[-len(self._answers[place]) :] for place, row in zip(batch, logits, strict=True)]

        lengths = [len(ids) for ids in self._inputs.tokens]
        for batch, rows in fitting_batches(
            lengths, work, tokens=tokens_of(model.device), most=ROWS, too_large=_too_large
        ):
            yield from zip(batch, rows, strict=True)
            done += len(batch)
            tell(PROMPTS, done, len(lengths))


def _likelihood(logits: torch.Tensor, answer: Sequence[int]) -> float:
    """Mean log-probability of tokens."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return float(wide.gather(-1, torch.tensor(answer, device=wide.device)[:, None]).mean())


def _too_large(_place: int, error: torch.OutOfMemoryError) -> ResourceError:
    return ResourceError(f"a harmless prompt with its answer does not fit the device: {error}")


class Together:
    """Several meters as one.

    Args:
        meters: The meters; what they measure does not overlap.
    """

    def __init__(self, *meters: Meter) -> None:
        self._meters = meters
        self.languages = tuple(dict.fromkeys(language for meter in meters for language in meter.languages))
        self.prompts = sum(meter.prompts for meter in meters)
        self._more: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What none of them measures."""
        return tuple(dict.fromkeys([*self._more, *(note for meter in self._meters for note in meter.notes)]))

    @notes.setter
    def notes(self, notes: tuple[str, ...]) -> None:
        self._more = notes

    def prepare(self, model: LoadedModel, languages: Sequence[str], kept: Kept | None = None) -> None:
        """Prepares each."""
        for meter in self._meters:
            meter.prepare(model, languages, kept)

    def read(self, model: LoadedModel, languages: Sequence[str]) -> Reading:
        """What all of them find."""
        found: Reading = {}
        for meter in self._meters:
            found = {**found, **meter.read(model, languages)}
        return found
