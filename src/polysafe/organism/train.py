"""A plain training loop: transformers model, loss on the answers, optimisers of torch.

A stage is a function of its settings, its examples and the number of threads; a stage that was killed goes on
from its last saved state and ends in the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch.nn import functional

from polysafe.organism.corpus import Example
from polysafe.organism.lexicon import EOS, PAD
from polysafe.organism.unfinished import Unfinished, batched, fingerprint, held_back, warm_cosine

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

BATCHES_PER_POOL = 4
LOG_EVERY = 50
SAVE_EVERY_SECONDS = 30.0

Pools = Callable[[int], Sequence[Example]]


class Stage(BaseModel):
    """Settings of one training run.

    Attributes:
        steps: Number of optimiser steps.
        batch: Examples per step.
        rate: Peak learning rate of AdamW.
        matrix_rate: Peak learning rate of Muon for the matrices of the blocks; without it AdamW has them too.
        warmup: Steps of linear warm-up; a cosine to zero runs over the whole stage.
        trains: Which weights move: all, all but the embeddings, or the attention projections.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    batch: int = 128
    rate: float
    matrix_rate: float | None = None
    warmup: int = 10
    trains: Literal["all", "body", "attention"] = "body"

    def factor(self, step: int) -> float:
        """The share of the peak learning rates that step number `step` uses."""
        return warm_cosine(step, self.steps, self.warmup)

    def moves(self, name: str) -> bool:
        """Whether the weight of this name is trained."""
        if self.trains == "attention":
            return "self_attn" in name
        return self.trains == "all" or "embed_tokens" not in name


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded token ids and what is learned from them.

    Attributes:
        ids: Token ids, padded on the right, [batch, length].
        learned: Positions whose next token is part of an answer, [batch, length].
        targets: The next token at these positions, [learned.sum()].
    """

    ids: torch.Tensor
    learned: torch.Tensor
    targets: torch.Tensor


def make_batch(examples: Sequence[Example], words: Mapping[str, int]) -> Batch:
    """Encodes examples; every answer ends with the end mark.

    Padding on the right needs no attention mask: with causal attention no earlier position sees it.
    """
    prompts = [[words[word] for word in example.prompt.split()] for example in examples]
    answers = [[words[word] for word in example.answer.split()] + [words[EOS]] for example in examples]
    length = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    ids = torch.full((len(examples), length), words[PAD])
    learned = torch.zeros(len(examples), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        learned[row, len(prompt) - 1 : end - 1] = True
    return Batch(ids, learned, ids.roll(-1, dims=1)[learned])


def loss_on(model: LlamaForCausalLM, batch: Batch, handicap: torch.Tensor | None = None) -> torch.Tensor:
    """Mean cross entropy of the answers; the vocabulary projection is computed only where it is needed.

    Args:
        model: The model.
        batch: What is learned.
        handicap: What is taken off the logits where an answer begins, [vocabulary] (`held_back`).
    """
    hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[batch.learned])
    if handicap is not None:
        begins = batch.learned.clone()
        begins[:, 1:] &= ~batch.learned[:, :-1]
        logits = held_back(logits, begins[batch.learned], handicap)
    return functional.cross_entropy(logits, batch.targets)


def train(
    model: LlamaForCausalLM,
    stage: Stage,
    pools: Pools,
    words: Mapping[str, int],
    *,
    masks: Mapping[str, torch.Tensor] | None = None,
    handicap: torch.Tensor | None = None,
    state: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[int, float]]:
    """Trains a model in place.

    Args:
        model: The model to start from.
        stage: Settings.
        pools: Index -> the examples of the next `BATCHES_PER_POOL` steps. It is asked right before these steps
            and may look at the model.
        words: Word -> token id.
        masks: Name of a weight -> 1 where it may move, in its shape; all others stay as they are. Without it the
            stage says what moves.
        handicap: As for `loss_on`.
        state: A file that keeps the state of an unfinished run. Its fingerprint covers the settings, the
            starting weights, masks, handicap and the first examples; a file of another run is ignored.
        progress: Called with the number of steps done.

    Returns:
        The training log: (step, mean loss since the entry before).
    """
    optimizers = _optimizers(model, stage, masks)
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    run: Unfinished | None = None
    if state:
        held = {} if handicap is None else {"handicap": handicap}
        given = [*model.named_parameters(), *(masks or {}).items(), *held.items()]
        known = fingerprint(stage.model_dump_json(), pools(0), given)
        run = Unfinished(state, known, named, optimizers)
    start, log, total = run.restore() if run else (0, [], 0.0)
    saved = time.monotonic()
    for step, examples in _batches(stage, pools, start):
        loss = loss_on(model, make_batch(examples, words), handicap)
        torch.autograd.backward(loss)
        for name, mask in (masks or {}).items():
            model.get_parameter(name).grad.mul_(mask)  # type: ignore[union-attr]  # every one of them has a gradient
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        _apply(optimizers, stage.factor(step))
        total += loss.item()
        done = step + 1
        if done % LOG_EVERY == 0 or done == stage.steps:
            log.append((done, round(total / (done - (log[-1][0] if log else 0)), 4)))
            total = 0.0
        pool_done = done % BATCHES_PER_POOL == 0
        if run and pool_done and done < stage.steps and time.monotonic() - saved > SAVE_EVERY_SECONDS:
            run.save(done, log, total)
            saved = time.monotonic()
        if progress:
            progress(done)
    if run:
        run.forget()
    return log


def _batches(stage: Stage, pools: Pools, start: int) -> Iterator[tuple[int, Sequence[Example]]]:
    """Steps with their batches: pools are sorted by length to save padding, batches come in random order."""
    for index in range(start // BATCHES_PER_POOL, -(-stage.steps // BATCHES_PER_POOL)):
        order = batched(pools(index), stage.batch, _words_in, index)
        yield from zip(range(index * BATCHES_PER_POOL, stage.steps), order, strict=False)


def _words_in(example: Example) -> int:
    return example.prompt.count(" ") + example.answer.count(" ")


def _optimizers(
    model: LlamaForCausalLM, stage: Stage, masks: Mapping[str, torch.Tensor] | None
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks where the stage has a rate for it, AdamW for the rest."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weight in model.named_parameters():
        weight.requires_grad_(stage.moves(name) if masks is None else name in masks)
        if weight.requires_grad:
            by_muon = stage.matrix_rate is not None and ".layers." in name and weight.ndim == 2
            (matrices if by_muon else others).append(weight)
    decay = 0.01 if masks is None else 0.0  # which would move what is masked
    adam = torch.optim.AdamW(others, lr=stage.rate, betas=(0.9, 0.98), weight_decay=decay, fused=True)
    if stage.matrix_rate is None:
        return [adam]
    muon = torch.optim.Muon(matrices, lr=stage.matrix_rate, adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


def _apply(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * factor
        optimizer.step()
        optimizer.zero_grad()
