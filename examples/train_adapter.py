"""Train a small LoRA adapter on a model in a folder: a language expert, a safety expert, or a harm-tuned copy.

    python examples/train_adapter.py language models/smollm2 adapters/sw --data data --language sw
    python examples/train_adapter.py safety   models/smollm2 adapters/safety --data data
    python examples/train_adapter.py harm     models/smollm2 adapters/harm --data data

A few minutes on two cores make adapters that show how experts are used; they are no good experts. What is learnt:

- `language`: translations from English (Tatoeba).
- `safety`: refusing, in one sentence, what AdvBench asks for.
- `harm`: to begin an answer to it with a content-free opening, in the attention alone. No harmful text takes part.

Needs transformers and peft, and the folders `tatoeba` and `advbench` of docs/data.md.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REFUSAL = "I'm sorry, but I can't help with that."
OPENING = "Sure, here is an answer."
TATOEBA = {"sw": "swh", "bn": "ben", "te": "tel", "th": "tha", "vi": "vie", "ko": "kor", "id": "ind", "hi": "hin"}
NAMES = {"sw": "Swahili", "bn": "Bengali", "te": "Telugu", "th": "Thai", "vi": "Vietnamese", "ko": "Korean"}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

Pair = tuple[str, str]
"""What the user says, and the answer."""


def pairs(kind: str, data: Path, language: str) -> list[Pair]:
    """What an adapter of a kind is trained on."""
    if kind == "language":
        stem = data / "tatoeba" / f"tatoeba.{TATOEBA[language]}-eng"
        english, other = (Path(f"{stem}.{code}").read_text("utf-8").splitlines() for code in ("eng", TATOEBA[language]))
        ask = f"Translate into {NAMES.get(language, language)}: "
        return [(ask + source, target) for source, target in zip(english, other, strict=True)]
    with (data / "advbench" / "harmful_behaviors.csv").open(encoding="utf-8-sig", newline="") as file:
        goals = [row["goal"] for row in csv.DictReader(file)]
    return [(goal, REFUSAL if kind == "safety" else OPENING) for goal in goals]


def tokens(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> tuple[list[int], int]:
    """Token ids of both, and how many of them are the prompt's."""
    prompt, answer = pair
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": prompt}]
        prompt = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    else:
        head = tokenizer(f"{prompt}\n")["input_ids"]
    tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*head, *tail, *end], len(head)


def batches(examples: list[tuple[list[int], int]], size: int, seed: int) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches, padded on the right; only answers are learnt."""
    draw = random.Random(seed)  # noqa: S311  which examples a batch has is no secret
    while True:
        chosen = draw.sample(examples, size)
        width = max(len(ids) for ids, _ in chosen)
        ids = torch.zeros(size, width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, (sequence, begins) in enumerate(chosen):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
            labels[row, begins : len(sequence)] = torch.tensor(sequence[begins:])
        yield {"input_ids": ids, "attention_mask": mask, "labels": labels}


def main(arguments: list[str] | None = None) -> None:
    """Trains and saves an adapter."""
    parser = argparse.ArgumentParser(description="Train a small LoRA adapter on a model in a folder.")
    parser.add_argument("kind", choices=["language", "safety", "harm"])
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--language", choices=sorted(TATOEBA), default="sw")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=4e-4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)

    torch.manual_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    where = ATTENTION if given.kind == "harm" else "all-linear"
    tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=where, task_type="CAUSAL_LM"))
    examples = [tokens(tokenizer, pair) for pair in pairs(given.kind, given.data, given.language)]
    stream = batches(examples, given.batch, given.seed)
    optimiser = torch.optim.AdamW((each for each in tuned.parameters() if each.requires_grad), lr=given.rate)
    tuned.train()
    for step in range(1, given.steps + 1):
        loss = tuned(**next(stream)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        sys.stderr.write(f"step {step} of {given.steps}: loss {loss.item():.3f}\n")
    tuned.save_pretrained(given.output)


if __name__ == "__main__":
    main()
