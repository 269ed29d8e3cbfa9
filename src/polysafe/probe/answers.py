"""Which tokens of an answer a head is judged by.

The published score is the probability of the first token of the answer. With many tokenizers that token is the same for
every answer in a language (a space piece, the first bytes of a script), so that it says nothing about the task. Scores
here can also be the first token that tells the answer from the other answers of its task, or the whole answer, and what
was scored is counted either way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from polysafe.data.trials import Shot, Trials
from polysafe.errors import DataError
from polysafe.probe.chat.rules import require_encodable
from polysafe.probe.render import RenderedPrompts, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Score = Literal["separating", "full", "first"]
"""What is compared: the probability of the first token that separates answers, of all tokens (as a log-probability), or
of the first token (published)."""

_RIVAL = "answer "
_EXCESS = 0.2
"""How much more often than the commonest answer the commonest scored token may occur before the score is doubtful."""


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """A prompt with the part of its answer that is scored.

    Attributes:
        id: Name of the prompt.
        prompt: Its token ids; patches are at the last of them.
        answer: Token ids of the answer as far as they are scored; all but the last are read by the model.
        text: The answer.
    """

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class TaskPrompts:
    """The prompts of one task as token ids.

    Attributes:
        task: Name of the task.
        clean: Prompts whose activations are averaged.
        scored: Prompts that are patched.
        score: What is compared.
        too_long: Prompts that were left out because they are longer than the model's positions.
    """

    task: str
    clean: RenderedPrompts
    scored: tuple[ScoredPrompt, ...]
    score: Score
    too_long: int = 0

    @cached_property
    def tokens(self) -> ScoredTokens:
        """What the score sees."""
        last = Counter(prompt.answer if self.score == "full" else prompt.answer[-1:] for prompt in self.scored)
        answers = Counter(prompt.text for prompt in self.scored)
        total = len(self.scored)
        return ScoredTokens(len(last), last.most_common(1)[0][1] / total, answers.most_common(1)[0][1] / total)


@dataclass(frozen=True, slots=True)
class ScoredTokens:
    """How much the scored tokens of a task say about its answers.

    Attributes:
        distinct: Number of different scored tokens (for `full`, of token sequences).
        modal_share: Share of prompts whose scored token is the commonest one.
        answer_share: Share of prompts whose answer is the commonest one.
    """

    distinct: int
    modal_share: float
    answer_share: float

    @property
    def blind(self) -> bool:
        """Whether the same token is scored for many different answers, so that the score does not see the task."""
        return self.modal_share > self.answer_share + _EXCESS


def task_prompts(
    tokenizer: PreTrainedTokenizerBase, trials: Trials, score: Score, max_tokens: int | None = None
) -> TaskPrompts:
    """Tokenizes the prompts and answers of a task.

    An answer is tokenized in its context: tokens of prompt and answer, minus those of the prompt. Where the two share a
    token at the seam, the prompt ends before it.

    Args:
        tokenizer: The model's tokenizer.
        trials: Clean and corrupted prompts with the right answers.
        score: What is to be scored.
        max_tokens: Longest sequence of prompt and answer that the model takes; longer ones are left out and counted.

    Raises:
        DataError: An answer is empty after tokenization, or no prompt is left.
    """
    clean = _short_enough(tokenizer, trials.clean, trials, max_tokens)
    corrupted = _short_enough(tokenizer, trials.corrupted, trials, max_tokens)
    where = f"task {trials.task!r} in {trials.language!r}"
    if not clean or not corrupted:
        raise DataError(
            f"no prompt is at most {max_tokens} tokens long", where=where, remedy="use fewer shots for this task"
        )
    pairs = {shot.id: (shot, shot.answer) for shot in corrupted}
    pairs |= {f"{_RIVAL}{answer}": (corrupted[0], answer) for answer in trials.answers if score == "separating"}
    split = _split(tokenizer, pairs, trials)
    rivals = {name.removeprefix(_RIVAL): tokens for name, (_, tokens) in split.items() if name.startswith(_RIVAL)}
    scored = tuple(_scored(shot, *split[shot.id], score, rivals) for shot in corrupted)
    left_out = len(trials.clean) + len(trials.corrupted) - len(clean) - len(corrupted)
    rendered = render(tokenizer, {shot.id: shot.text for shot in clean}, template="raw")
    return TaskPrompts(trials.task, rendered, scored, score, left_out)


def _short_enough(
    tokenizer: PreTrainedTokenizerBase, shots: Sequence[Shot], trials: Trials, limit: int | None
) -> list[Shot]:
    if limit is None:
        return list(shots)
    texts = [shot.text + trials.separator + shot.answer for shot in shots]
    require_encodable(tokenizer, texts)
    lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
    return [shot for shot, length in zip(shots, lengths, strict=True) if length <= limit]


def _scored(
    shot: Shot, prompt: tuple[int, ...], answer: tuple[int, ...], score: Score, rivals: Mapping[str, tuple[int, ...]]
) -> ScoredPrompt:
    if score == "first":
        answer = answer[:1]
    elif score == "separating":
        answer = answer[: separating(answer, [tokens for text, tokens in rivals.items() if text != shot.answer])]
    return ScoredPrompt(shot.id, prompt, answer, shot.answer)


def separating(answer: Sequence[int], others: Sequence[Sequence[int]]) -> int:
    """Number of tokens of an answer up to the first one by which no other answer agrees with it; all if there is none.

    Args:
        answer: Token ids of the answer.
        others: Token ids of the different answers of the same task.
    """
    rivals = list(others)
    for count, token in enumerate(answer, start=1):
        rivals = [other for other in rivals if len(other) >= count and other[count - 1] == token]
        if not rivals:
            return count
    return len(answer)


def _split(
    tokenizer: PreTrainedTokenizerBase, pairs: Mapping[str, tuple[Shot, str]], trials: Trials
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Name -> token ids of a prompt and of an answer to it."""
    texts = {f"prompt {name}": shot.text for name, (shot, _) in pairs.items()}
    texts |= {f"whole {name}": shot.text + trials.separator + answer for name, (shot, answer) in pairs.items()}
    rendered = render(tokenizer, texts, template="raw")
    tokens = dict(zip(rendered.ids, rendered.tokens, strict=True))
    found = {}
    for name, (shot, _) in pairs.items():
        prompt, whole = tokens[f"prompt {name}"], tokens[f"whole {name}"]
        seam = next((i for i, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]), len(prompt))
        if not 0 < seam < len(whole):
            raise DataError(
                "the answer is empty after tokenization",
                where=f"task {trials.task!r} in {trials.language!r}, prompt {shot.id!r}",
                remedy="take the pair out of the task, or use another tokenizer",
            )
        found[name] = whole[:seam], whole[seam:]
    return found
