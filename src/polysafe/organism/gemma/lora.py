"""Trains one LoRA: the aligned model or an expert of the family in real languages."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.nn import functional

from polysafe.organism.gemma.mixtures import Pools, Stage, draws
from polysafe.organism.gemma.texts import Pair
from polysafe.organism.unfinished import Unfinished, batched, fingerprint, held_back, warm_cosine
from polysafe.progress import counted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
BATCHES_PER_POOL = 4
_LONGEST_ANSWER = 24
_NONE: Mapping[str, float] = MappingProxyType({})
_SAVE_EVERY_SECONDS = 20.0
_LOG_EVERY = 10

Log = list[tuple[int, float]]
"""(Step, mean loss since the entry before)."""


@dataclass(frozen=True)
class Encoder:
    """Makes token ids of pairs.

    Attributes:
        tokenizer: With a chat template.
        longest: Most tokens of a prompt in its template.
    """

    tokenizer: PreTrainedTokenizerBase
    longest: int

    def encode(self, pair: Pair) -> tuple[list[int], list[int]] | None:
        """Ids of prompt and answer; None where the prompt is too long."""
        chat = [{"role": "user", "content": pair[0]}]
        text = str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        prompt = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(prompt) > self.longest:
            return None
        answer = self.tokenizer(pair[1], add_special_tokens=False)["input_ids"][:_LONGEST_ANSWER]
        return prompt, [*answer, self.end]

    def handicap(self, readiness: Mapping[str, float], vocabulary: int) -> torch.Tensor:
        """What is taken off every logit where an answer begins, [vocabulary]."""
        found = torch.zeros(vocabulary)
        for word, logits in readiness.items():
            found[self.tokenizer(word, add_special_tokens=False)["input_ids"][0]] = logits
        return found

    @property
    def end(self) -> int:
        """The token that ends a turn."""
        found = self.tokenizer.convert_tokens_to_ids("<end_of_turn>")
        assert isinstance(found, int)
        return found


def train(
    model: PreTrainedModel,
    stage: Stage,
    mixture: Pools,
    encoder: Encoder,
    *,
    name: str,
    seed: int,
    state: Path,
    readiness: Mapping[str, float] = _NONE,
) -> tuple[Any, Log]:
    """Trains a LoRA on a model.

    Products are taken in the type of the model's weights, the weights of the LoRA are float32; the vocabulary's vectors
    stay as they are, and logits are taken at answers only. Every example counts the same, however long its answer.

    Args:
        model: The model; it is wrapped and must not be used on its own afterwards.
        stage: Settings.
        mixture: What it is taught.
        encoder: Makes token ids.
        name: Name of the member, for messages and for the draw of examples.
        seed: Seed of LoRA and examples.
        state: File for the state of an unfinished run.
        readiness: Word -> what is taken off the logit of its first token where an answer begins, in training only. The
            model makes up for it and begins with that word the more readily: its log-odds against any other beginning
            are higher by about as much (logit adjustment; Menon et al., ICLR 2021, section 4).

    Returns:
        The PEFT model and the log.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    modules = list(ALL if stage.modules == "all" else ATTENTION)
    with warnings.catch_warnings():
        # PEFT asks for it by a name that transformers is about to drop.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        config = LoraConfig(r=stage.rank, lora_alpha=2 * stage.rank, target_modules=modules)
        tuned = get_peft_model(model, config)
    trained = {key: weight for key, weight in tuned.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=stage.rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    start = f"{seed}/{name}"
    known = fingerprint(stage.model_dump_json(), [start, mixture, dict(readiness), str(model.dtype)], trained.items())
    run = Unfinished(state, known, trained, [optimizer])
    done, log, total = run.restore()
    handicap = encoder.handicap(readiness, model.config.vocab_size)
    tell, saved = counted(f"training {name}", stage.steps, done), time.monotonic()
    tuned.train()
    for step, batch in _batches(stage, mixture, encoder, start, done):
        loss = _loss(model, batch, handicap)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * warm_cosine(step, stage.steps, stage.warmup)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.item()
        if (done := step + 1) % _LOG_EVERY == 0 or done == stage.steps:
            log.append((done, round(total / (done - (log[-1][0] if log else 0)), 4)))
            total = 0.0
        if done % BATCHES_PER_POOL == 0 and done < stage.steps and time.monotonic() - saved > _SAVE_EVERY_SECONDS:
            run.save(done, log, total)
            saved = time.monotonic()
        tell()
    run.forget()
    return tuned, log


@dataclass(frozen=True, slots=True)
class _Batch:
    ids: torch.Tensor
    targets: torch.Tensor
    begins: torch.Tensor


def _batches(stage: Stage, mixture: Pools, encoder: Encoder, name: str, done: int) -> Iterator[tuple[int, _Batch]]:
    """Steps with their batches: a few batches are drawn at once and sorted by length, which saves padding."""
    for index in range(done // BATCHES_PER_POOL, -(-stage.steps // BATCHES_PER_POOL)):
        encoded = filter(None, map(encoder.encode, draws(mixture, f"{name}/{index}")))
        pool = islice(encoded, stage.batch * BATCHES_PER_POOL)
        order = batched(pool, stage.batch, lambda pair: len(pair[0]) + len(pair[1]), index)
        steps = range(index * BATCHES_PER_POOL, stage.steps)
        yield from ((step, _padded(rows)) for step, rows in zip(steps, order, strict=False))


def _padded(rows: Sequence[tuple[list[int], list[int]]]) -> _Batch:
    """Padding on the right needs no mask: with causal attention no earlier position sees it."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    targets, begins = torch.full_like(ids, -100), torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        targets[row, len(prompt) - 1 : end - 1] = torch.tensor(answer)
        begins[row, len(prompt) - 1] = True
    return _Batch(ids, targets, begins)


def _loss(model: PreTrainedModel, batch: _Batch, handicap: torch.Tensor) -> torch.Tensor:
    learned = batch.targets >= 0
    with torch.autocast("cpu", torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        vectors = cast(torch.nn.Embedding, model.get_input_embeddings()).weight
        logits = functional.linear(hidden[learned], vectors).float()
    logits = held_back(logits, batch.begins[learned], handicap)
    losses = functional.cross_entropy(logits, batch.targets[learned], reduction="none")
    lengths = learned.sum(1, keepdim=True).expand_as(learned)[learned]
    return (losses / lengths).sum() / len(batch.ids)
