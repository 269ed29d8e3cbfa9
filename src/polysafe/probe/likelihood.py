"""How probable a model finds an answer, for prompts that are rendered as those that it is asked."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

import torch

from polysafe.errors import ResourceError
from polysafe.probe.batches import fitting_batches
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import RenderedPrompts, Template, continued, render
from polysafe.probe.tokenizer_identity import tokenizer_sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = 16_384
"""Tokens of a batch with their padding."""
PROCESSOR_TOKENS = 2048
"""The same on a processor, where larger batches are no faster. It is a number and not a time, so that likelihoods do
not depend, in their last digits, on how busy the machine is."""
ROWS = 256
"""Most sequences of a batch."""
_LOGITS = 1 << 28
"""Most logits that are held at once."""


def tokens_of(device: torch.device) -> int:
    """Tokens of a batch on a device."""
    return PROCESSOR_TOKENS if device.type == "cpu" else TOKENS


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How probable an answer is.

    Attributes:
        total: Sum of the log-probabilities of its tokens, natural logarithm, float32 or wider; NaN for a broken model.
        greedy: Whether greedy decoding would give exactly these tokens.
        tokens_sha256: SHA-256 of the token ids that the model read, and where the answer begins.
    """

    total: float
    greedy: bool
    tokens_sha256: str


class Scores(Protocol):
    """Something that says how probable an answer is."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides a score besides prompt and answer, in values that JSON can hold."""

    def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
        """(place of a request, its likelihood); None for what does not fit the model's positions."""


class Scorer:
    """Log-likelihoods of answers after prompts.

    Sequences are sorted by length and run in left-padded batches; answers that differ in their last token alone share
    a run, so that four choices of one letter cost one.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        template: Whether prompts go into the chat template.
        batch_tokens: Tokens of a batch, by default as many as the device does in seconds. Where memory runs out,
            batches are halved until they fit.

    Attributes:
        keeps: Whether the model can be asked for the last logits alone.
        takes_positions: Whether it takes the positions of tokens.
    """

    def __init__(
        self,
        model: LoadedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: Template = "chat",
        batch_tokens: int | None = None,
    ) -> None:
        self._model, self._tokenizer, self._template = model, tokenizer, template
        taken = inspect.signature(model.model.forward).parameters
        batch_tokens = tokens_of(model.device) if batch_tokens is None else batch_tokens
        self.keeps, self.takes_positions = "logits_to_keep" in taken, "position_ids" in taken
        few = batch_tokens if self.keeps else _LOGITS // (model.architecture.vocabulary or 1)
        self._batch_tokens = max(1, min(batch_tokens, few))

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer with template, engine and versions, type and device."""
        return {
            "engine": "transformers",
            "versions": {name: metadata.version(name) for name in ("torch", "transformers")},
            "weights": self._model.sha256,
            "tokenizer": tokenizer_sha256(self._tokenizer, self._template, None),
            "template": self._template,
            "dtype": self._model.dtype,
            "device": self._model.device.type,
        }

    def score(self, requests: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Likelihood | None]]:
        """(place of a request, its likelihood), batch by batch; None for what does not fit the model's positions.

        Prompts are never cut.

        Args:
            requests: (prompt, answer).

        Raises:
            DataError: A prompt is empty or holds a beginning-of-sequence token, or an answer has no token.
            ResourceError: A single sequence does not fit the device.
        """
        names = {prompt: f"request {number}" for number, (prompt, _) in enumerate(requests)}
        if not names:
            return
        texts = {name: prompt for prompt, name in names.items()}
        prompts = render(self._tokenizer, texts, template=self._template, max_tokens=self.room, leave_out=True)
        where = {name: place for place, name in enumerate(prompts.ids)}
        asked = [place for place, (prompt, _) in enumerate(requests) if names[prompt] in where]
        yield from ((place, None) for place, (prompt, _) in enumerate(requests) if names[prompt] not in where)
        if not asked:
            return
        pairs = [(where[names[requests[place][0]]], requests[place][1]) for place in asked]
        found = continued(self._tokenizer, prompts, pairs)
        runs: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
        for place, (whole, begins) in zip(asked, found, strict=True):
            if len(whole) - 1 > self.room:
                yield place, None
            else:
                runs.setdefault(whole[:-1], []).append((place, whole[begins:]))
        yield from self._run(runs, prompts)

    @property
    def room(self) -> int:
        """Most tokens that the model reads."""
        positions = self._model.max_tokens
        stated = int(self._tokenizer.model_max_length)
        return stated if positions is None else min(stated, positions)

    def _run(
        self, runs: Mapping[tuple[int, ...], Sequence[tuple[int, tuple[int, ...]]]], prompts: RenderedPrompts
    ) -> Iterator[tuple[int, Likelihood]]:
        tokens = sorted(runs, key=lambda ids: -len(ids))
        names = tuple(map(str, range(len(tokens))))
        sequences = RenderedPrompts(names, names, tuple(tokens), prompts.padding, prompts.template, prompts.tokenizer)

        def score(batch: range) -> list[tuple[int, Likelihood]]:
            return self._score_batch(sequences, batch, [runs[tokens[place]] for place in batch])

        def too_large(place: int, error: torch.OutOfMemoryError) -> ResourceError:
            return ResourceError(
                f"a sequence of {len(tokens[place])} tokens does not fit the device: {error}",
                remedy="use a smaller type, or another device",
            )

        lengths = [len(ids) for ids in tokens]
        for _, found in fitting_batches(lengths, score, tokens=self._batch_tokens, most=ROWS, too_large=too_large):
            yield from found

    def _score_batch(
        self, sequences: RenderedPrompts, batch: range, answers: Sequence[Sequence[tuple[int, tuple[int, ...]]]]
    ) -> list[tuple[int, Likelihood]]:
        kept = max(len(answer) for row in answers for _, answer in row)
        logits = self.logits(sequences, batch, kept)
        found = []
        for i, row, scores in zip(batch, answers, logits, strict=True):
            for place, answer in row:
                total, greedy = _likelihood(scores[-len(answer) :], answer)
                whole = [*sequences.tokens[i], answer[-1]]
                digest = hashlib.sha256(str([whole, len(whole) - len(answer)]).encode()).hexdigest()
                found.append((place, Likelihood(total, greedy, digest)))
        return found

    def logits(self, sequences: RenderedPrompts, batch: range, kept: int) -> torch.Tensor:
        """Logits at the last tokens of some sequences.

        Args:
            sequences: Prompts with answers, without the last token of each answer.
            batch: Which of them, by place.
            kept: Number of tokens, counted from the end.

        Returns:
            [sequences, kept, vocabulary].
        """
        inputs = sequences.batch(batch).to(self._model.device)
        options: dict[str, Any] = {"logits_to_keep": kept} if self.keeps else {}
        if self.takes_positions:
            options["position_ids"] = inputs.position_ids
        with torch.inference_mode():
            output = self._model.model(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, use_cache=False, **options
            )
        found: torch.Tensor = output.logits[:, -kept:]
        return found


def _likelihood(logits: torch.Tensor, answer: Sequence[int]) -> tuple[float, bool]:
    """Log-probability of tokens, and whether each is the most probable one; logits [tokens, vocabulary]."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = torch.tensor(answer, device=wide.device)
    chosen = wide.gather(-1, targets[:, None]).squeeze(-1) - wide.logsumexp(-1)
    return float(chosen.sum()), bool((wide.argmax(-1) == targets).all())
