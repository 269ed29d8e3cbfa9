"""What the answer's tokens are worth to a model while one attention head says something else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch

from polysafe.probe.answers import Score, ScoredPrompt
from polysafe.probe.forward import first_tensor
from polysafe.probe.model import LoadedModel, Site
from polysafe.probe.patching import OutputHead, RowPass

_LOGITS = 1 << 26
"""Most logits that are held at once."""


class RowScorer:
    """Scores of all runs of a prompt by one row pass; a context, while which the model's attention is replaced.

    Args:
        model: The model.
        means: What replaces the heads' outputs, [layers, heads, size].

    Raises:
        ArchitectureError: The model does not allow it.
    """

    def __init__(self, model: LoadedModel, means: torch.Tensor) -> None:
        self._head = OutputHead(model)
        self._pass = RowPass(model, means)
        self._stack = ExitStack()
        self._vocabulary = model.architecture.vocabulary or 1

    def __enter__(self) -> Self:
        self._stack.enter_context(self._pass)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scores(self, prompt: ScoredPrompt, score: Score) -> torch.Tensor:
        """Scores of the run without a patch and of those with one, by layer and head: float32 [1 + layers·heads]."""
        states = self._pass.states(prompt.prompt, prompt.answer[:-1])
        if score != "full":
            states = states[:, -1:]
        step = max(1, _LOGITS // (states.shape[1] * self._vocabulary))
        parts = [scored(self._head(states[i : i + step]), prompt, score) for i in range(0, len(states), step)]
        return torch.cat(parts).cpu()


def scored(logits: torch.Tensor, prompt: ScoredPrompt, score: Score) -> torch.Tensor:
    """The score of runs, float32 [runs].

    Args:
        logits: [runs, tokens, vocabulary]: at the tokens before each scored one; for `full` those before every token of
            the answer, otherwise only those before its last.
        prompt: What is scored.
        score: Probability of the last token of `prompt.answer`, or for `full` the log-probability of all of them.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = torch.tensor(prompt.answer if score == "full" else prompt.answer[-1:], device=logits.device)
    chosen = wide.gather(-1, targets.expand(len(wide), -1)[..., None]).squeeze(-1)
    found = (chosen - wide.logsumexp(-1)).sum(-1)
    return found if score == "full" else found.exp()


class LayerScorer:
    """The same scores by full forward passes of the model as it is, the heads of a layer in one batch.

    Args:
        model: The model.
        means: What replaces the heads' outputs, [layers, heads, size].
    """

    def __init__(self, model: LoadedModel, means: torch.Tensor) -> None:
        self._model, self._means = model, means

    def scores(self, prompt: ScoredPrompt, score: Score) -> torch.Tensor:
        """Scores of the run without a patch and of those with one, by layer and head: float32 [1 + layers·heads]."""
        layers, heads, _ = self._means.shape
        parts = [patched_scores(self._model, self._means, prompt, score, [])]
        for layer in range(layers):
            cells = [(layer, head) for head in range(heads)]
            parts.append(patched_scores(self._model, self._means, prompt, score, cells))
        return torch.cat(parts)


def patched_scores(
    model: LoadedModel, means: torch.Tensor, prompt: ScoredPrompt, score: Score, heads: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Scores of runs in which one head each is replaced, by full forward passes of the model as it is.

    Args:
        model: The model.
        means: What replaces the heads' outputs, [layers, heads, size].
        prompt: The prompt.
        score: What is compared.
        heads: (layer, head) for each run, where layers without heads do not count; empty for the one run without a
            patch.

    Returns:
        Scores, float32 [runs].
    """
    runs, position = max(1, len(heads)), len(prompt.prompt) - 1
    tokens = torch.tensor([[*prompt.prompt, *prompt.answer[:-1]]], device=model.device).expand(runs, -1)
    with ExitStack() as stack:
        for layer in sorted({layer for layer, _ in heads}):
            runs_of = [(run, head) for run, (other, head) in enumerate(heads) if other == layer]
            _, module = model.module(model.parameters.with_heads[layer], Site.HEADS)
            hook = module.register_forward_pre_hook(_replacing(means[layer], runs_of, position), with_kwargs=True)
            stack.callback(hook.remove)
        with torch.no_grad():
            logits = first_tensor(model.model(input_ids=tokens, use_cache=False).logits)
    return scored(logits[:, position:] if score == "full" else logits[:, -1:], prompt, score).cpu()


def _replacing(means: torch.Tensor, runs: Sequence[tuple[int, int]], position: int) -> Any:
    size = means.shape[1]

    def hook(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = first_tensor((args, kwargs)).clone()
        for run, head in runs:
            outputs[run, position, head * size : (head + 1) * size] = means[head].to(outputs)
        return (outputs, *args[1:]), kwargs

    return hook
