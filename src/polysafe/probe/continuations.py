"""Log-probabilities of several answers to each prompt: the prompt is read once, and every answer goes on from there.

`likelihood.Scorer` reads prompt and answer together, which is what lm-eval does and what its numbers are compared with.
Where a prompt has many short answers, most of that is the same prompt again. Here its keys and values are kept and
repeated for every answer; the result differs from the other by rounding only (`tests/probe/test_continuations.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch

from polysafe.errors import ArchitectureError, ResourceError
from polysafe.probe.batches import fitting_batches
from polysafe.probe.caches import Caches
from polysafe.probe.likelihood import Scorer, tokens_of
from polysafe.probe.model import LoadedModel
from polysafe.probe.render import Template, continued, render

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedTokenizerBase

ROWS = 32
"""Most prompts of a batch: an interruption loses a batch, and answers multiply it."""
_LOGITS = 1 << 26
"""Most logits that are held at once."""

Ask = tuple[str, Sequence[str]]
"""A prompt, and its answers."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """How probable one answer is.

    Attributes:
        total: Sum of the log-probabilities of its tokens, natural logarithm.
        tokens: Number of its tokens.
    """

    total: float
    tokens: int


@dataclass(frozen=True)
class _Group:
    """The answers of one prompt as tokens.

    Attributes:
        place: Place of the prompt in what was asked.
        head: Tokens that are the same before every answer.
        answers: Tokens of the answers after these, in order.
        skip: How many of the tokens after `head` are the prompt's still.
    """

    place: int
    head: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    skip: int

    @property
    def longest(self) -> int:
        """Tokens of the longest answer."""
        return max(map(len, self.answers))

    @property
    def tokens(self) -> int:
        """Tokens that are read, with padding."""
        return len(self.head) + len(self.answers) * self.longest


@dataclass(frozen=True)
class Prepared:
    """Prompts and answers as tokens, which do not change with the weights.

    Attributes:
        asks: Prompts with their answers.
        groups: Those that fit the model, the longest first.
    """

    asks: tuple[Ask, ...]
    groups: tuple[_Group, ...]


class Continues(Protocol):
    """Something that scores several answers to each prompt."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides a score besides prompt and answer, in values that JSON can hold."""

    def score(self, asks: Sequence[Ask]) -> Iterator[tuple[int, tuple[Continuation, ...]]]:
        """(place of a prompt, its answers' scores in order); what does not fit the model is left out."""


class Continuations:
    """Scores answers that begin alike for many prompts.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        template: Whether prompts go into the chat template.
        batch_tokens: Tokens of a batch, by default as for `Scorer`. Where memory runs out, batches are halved until
            they fit.
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
        self._batch_tokens = tokens_of(model.device) if batch_tokens is None else batch_tokens
        self._scorer = Scorer(model, tokenizer, template=template, batch_tokens=batch_tokens)
        self._caches = Caches(model)

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer with template, engine and versions, type and device."""
        return self._scorer.identity

    def score(self, asks: Sequence[Ask]) -> Iterator[tuple[int, tuple[Continuation, ...]]]:
        """(place of a prompt, its answers' scores in order), batch by batch; what does not fit the model is left out.

        Prompts are never cut.

        Args:
            asks: Prompts with their answers.

        Raises:
            DataError: A prompt is empty, or an answer has no token.
            ResourceError: A single prompt does not fit the device.
        """
        yield from self.run(self.prepare(asks))

    def prepare(self, asks: Sequence[Ask]) -> Prepared:
        """Prompts and answers as tokens, for a model that is asked again after every change of its weights.

        Raises:
            DataError: As `score`.
        """
        return Prepared(tuple(asks), tuple(sorted(self._groups(asks), key=lambda group: -group.tokens)))

    def run(self, prepared: Prepared) -> Iterator[tuple[int, tuple[Continuation, ...]]]:
        """Scores what was prepared, as `score`."""
        groups = prepared.groups
        if not self._continues(prepared):
            yield from self._one_by_one(prepared.asks, groups)
            return

        def too_large(place: int, error: torch.OutOfMemoryError) -> ResourceError:
            return ResourceError(
                f"a prompt of {len(groups[place].head)} tokens does not fit the device: {error}",
                remedy="use a smaller type, or another device",
            )

        def work(batch: range) -> list[tuple[int, tuple[Continuation, ...]]]:
            return self._score([groups[place] for place in batch])

        lengths = [group.tokens for group in groups]
        limit = min(self._batch_tokens, _LOGITS // (self._model.architecture.vocabulary or 1))
        for _, found in fitting_batches(lengths, work, tokens=max(1, limit), most=ROWS, too_large=too_large):
            yield from found

    def per_token(self, prepared: Prepared) -> Iterator[tuple[int, torch.Tensor]]:
        """(place of a prompt, mean log-probability per token of each answer), prompt by prompt, with their gradients.

        Numbers are those of `run`; what they hang on is kept for one prompt at a time.

        Raises:
            ArchitectureError: The model keeps no keys and values that can be repeated.
        """
        if not self._continues(prepared):
            raise ArchitectureError(
                "keeps no keys and values of a prompt, so that no gradient is taken of its answers",
                where=self._model.source.name,
            )
        for group in prepared.groups:
            (scores,) = self._answers([group])
            yield group.place, torch.stack([each.mean() for each in scores])

    def _continues(self, prepared: Prepared) -> bool:
        return self._caches.repeats and all(group.head for group in prepared.groups)

    def _groups(self, asks: Sequence[Ask]) -> Iterator[_Group]:
        names = {str(place): text for place, (text, _) in enumerate(asks)}
        if not names:
            return
        room = self._scorer.room
        prompts = render(self._tokenizer, names, template=self._template, max_tokens=room, leave_out=True)
        pairs = [(row, answer) for row, name in enumerate(prompts.ids) for answer in asks[int(name)][1]]
        found = iter(continued(self._tokenizer, prompts, pairs))
        for name in prompts.ids:
            wholes = [next(found) for _ in asks[int(name)][1]]
            group = _grouped(int(name), wholes)
            if len(group.head) + group.longest <= room:
                yield group

    def _one_by_one(
        self, asks: Sequence[Ask], groups: Sequence[_Group]
    ) -> Iterator[tuple[int, tuple[Continuation, ...]]]:
        for group in groups:
            text, answers = asks[group.place]
            found = dict(self._scorer.score([(text, answer) for answer in answers]))
            totals = [one.total for place in range(len(answers)) if (one := found[place]) is not None]
            sizes = [len(answer) - group.skip for answer in group.answers]
            yield group.place, tuple(map(Continuation, totals, sizes))

    def _score(self, groups: Sequence[_Group]) -> list[tuple[int, tuple[Continuation, ...]]]:
        with torch.inference_mode():
            found = self._answers(groups)
        return [
            (group.place, tuple(Continuation(float(each.sum()), len(each)) for each in scores))
            for group, scores in zip(groups, found, strict=True)
        ]

    def _answers(self, groups: Sequence[_Group]) -> list[list[torch.Tensor]]:
        """Log-probabilities of the tokens of every answer; prompts are read once, and their answers from there."""
        rows = max(len(group.answers) for group in groups)
        width = max(group.longest for group in groups)
        heads = _padded([group.head for group in groups], self._model.device, left=True)
        answers = _padded(
            [answer for group in groups for answer in (*group.answers, *(((0,),) * (rows - len(group.answers))))],
            self._model.device,
            left=False,
            width=width,
        )
        first, rest = self._logits(heads, answers, rows)
        logits = torch.cat([first.repeat_interleave(rows, dim=0), rest], dim=1)
        scores = _chosen(logits, answers[0])
        return [
            [scores[row * rows + place, group.skip : len(answer)] for place, answer in enumerate(group.answers)]
            for row, group in enumerate(groups)
        ]

    def _logits(
        self, heads: tuple[torch.Tensor, torch.Tensor], answers: tuple[torch.Tensor, torch.Tensor], rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits after every prompt, [prompts, 1, vocabulary], and before every later token of the answers."""
        ids, mask = heads
        positions = (mask.cumsum(1) - 1).clamp_min(0) * mask
        kept = self._caches.new()
        read = self._forward(ids, mask, positions, kept, **self._keep(1))
        first = read.logits[:, -1:]
        if answers[0].shape[1] == 1:
            return first, first.new_empty(len(answers[0]), 0, first.shape[-1])
        kept.batch_repeat_interleave(rows)
        later, later_mask = answers[0][:, :-1], answers[1][:, :-1]
        begins = mask.sum(1).repeat_interleave(rows)[:, None]
        after = begins + torch.arange(later.shape[1], device=later.device)
        whole = torch.cat([mask.repeat_interleave(rows, dim=0), later_mask], dim=1)
        rest = self._forward(later, whole, after, kept)
        return first, rest.logits

    def _keep(self, count: int) -> dict[str, Any]:
        return {"logits_to_keep": count} if self._scorer.keeps else {}

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache, **options: Any
    ) -> Any:
        if self._scorer.takes_positions:
            options["position_ids"] = positions
        options[self._caches.name] = cache
        return self._model.model(input_ids=ids, attention_mask=mask, use_cache=True, **options)


def _grouped(place: int, wholes: Sequence[tuple[tuple[int, ...], int]]) -> _Group:
    """The tokens that all answers share before any of them begins, and what comes after.

    A tokenizer may join the end of a prompt with an answer; the answer then has the joined token.
    """
    begins = min(begin for _, begin in wholes)
    shared = next(
        (i for i in range(begins) if any(whole[i] != wholes[0][0][i] for whole, _ in wholes)),
        begins,
    )
    return _Group(place, wholes[0][0][:shared], tuple(whole[shared:] for whole, _ in wholes), begins - shared)


def _padded(
    rows: Sequence[Sequence[int]], device: torch.device, *, left: bool, width: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and their mask, [rows, width], int64; padding is the id 0 and masked."""
    width = max(map(len, rows)) if width is None else width
    gaps = [width - len(row) for row in rows]
    ids = [[*((0,) * gap), *row] if left else [*row, *((0,) * gap)] for row, gap in zip(rows, gaps, strict=True)]
    mask = [
        [*((0,) * gap), *((1,) * len(row))] if left else [*((1,) * len(row)), *((0,) * gap)]
        for row, gap in zip(rows, gaps, strict=True)
    ]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _chosen(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of every token, float32 or wider; logits [rows, tokens, vocabulary]."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide.gather(-1, tokens[..., None]).squeeze(-1) - wide.logsumexp(-1)
