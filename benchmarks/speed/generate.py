"""Answers to a mix of prompts: length-sorted batches against transformers' continuous batching, one after the other.

    python -m benchmarks.speed.generate --runs 3 --output benchmarks/results/generate.json
    python -m benchmarks.speed.generate --device cuda --shapes llama-3.1-8b --sides sorted continuous --output cuda.json

One process per side and run, alternating. Random Llamas are made on the device and never written; the toy family is the
packaged one. Prompts are neutral words whose number follows the lengths of MultiJail (a third of the UTF-8 bytes of its
3,150 prompts). A random model never means to stop, so one word in 64 ends an answer: answers have many lengths, some as
long as the budget, which is what continuous batching is for. All sides are greedy; the share of answers that are, token
by token, those of asking one at a time (`alone`) is printed with the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from benchmarks.frame import timing
from benchmarks.frame.llama import WIDE, load_folder
from benchmarks.frame.measure import Measurement, in_process, measured

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from polysafe.probe.model import LoadedModel

SIDES = ("alone", "sorted", "continuous")
SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
LENGTHS = (3, 10, 11, 15, 23, 39, 64, 90, 192, 834)
"""Tokens of a prompt at each share of the prompts of MultiJail."""
ENDS = 64
"""One in so many words ends an answer."""
SPREAD = 0.06
"""Spread of the random weights; with less, a model soon repeats itself and never comes to a word that ends."""

Answers = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shape:
    """A random Llama, and what it is asked; layers 0 is the packaged toy family."""

    layers: int
    heads: int
    kv_heads: int
    width: int
    inner: int
    vocabulary: int
    prompts: int
    budget: int
    longest: int
    dtype: str = "float32"
    batch_tokens: int = 16_384
    """Of a sorted batch. A few prompts in one large batch would be padded as no batch of a whole benchmark is."""


SHAPES = {
    "toy family": Shape(0, 0, 0, 0, 0, 0, prompts=600, budget=8, longest=48),
    "L12 D768, 0.13 B": Shape(12, 12, 4, 768, 2048, 32_000, prompts=24, budget=64, longest=192, batch_tokens=1024),
    "llama-3.1-8b": Shape(*WIDE, 128_256, prompts=1024, budget=256, longest=834, dtype="bfloat16"),
}


def main() -> None:
    """Measures both sides of every shape and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    timing.add_side(parser, SIDES)
    parser.add_argument("--shapes", "--shape", nargs="+", choices=SHAPES, default=list(SHAPES)[:2])
    parser.add_argument("--answers", type=Path, help="file for the answers of that side")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asdict(measure_side(options.side, options.shapes[0], options.device, options.answers))))
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # continuous batching would look for attention kernels there
    results = {name: _measure(name, options) for name in options.shapes}
    content = {"torch_threads": 1, "versions": _versions(), "shapes": {**_before(options.output), **results}}
    timing.save(options.output, content, options.device)


def _before(output: Path | None) -> dict[str, Any]:
    """Shapes that were measured in an earlier call."""
    return dict(json.loads(output.read_text(encoding="utf-8"))["shapes"]) if output and output.exists() else {}


def measure_side(side: str, name: str, device: str, answers: Path) -> Measurement:
    """What one side takes for all prompts of a shape, in this process."""
    import torch

    torch.set_num_threads(1)
    shape = SHAPES[name]
    model, tokenizer = _toy() if shape.layers == 0 else _random_model(shape, device)
    texts = _texts(shape, tokenizer)
    answer = {"alone": _alone, "sorted": _sorted, "continuous": _continuous}[side]

    def work(asked: Mapping[str, str]) -> Answers:
        return answer(shape, model, tokenizer, asked)

    work(dict(list(texts.items())[:4]))  # what is loaded or compiled once
    found: Answers = {}

    def whole() -> None:
        found.update(work(texts))
        if device != "cpu":
            torch.cuda.synchronize()

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    measurement = measured(whole)
    memory = 0.0 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
    answers.write_text(json.dumps({"answers": found, "device_mib": memory}), encoding="utf-8")
    return measurement


def _alone(shape: Shape, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> Answers:
    """The same, one prompt at a time: what no batch should change."""
    return _sorted(replace(shape, batch_tokens=1), model, tokenizer, texts)


def _sorted(shape: Shape, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]) -> Answers:
    """The generator that polysafe uses."""
    generator = _generator(shape, model, tokenizer)
    done = generator.generate([_ask(name, text) for name, text in texts.items()])
    return {each.id: tuple(tokenizer(each.text, add_special_tokens=False)["input_ids"]) for each in done}


def _continuous(
    shape: Shape, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, str]
) -> Answers:
    """Transformers' continuous batching with the same settings, its own defaults for everything else."""
    import torch
    from transformers import ContinuousBatchingConfig

    generator = _generator(shape, model, tokenizer)
    prompts = generator._render(texts)
    longest = max(map(len, prompts.tokens)) + shape.budget
    # Without a device to ask, memory for all prompts that the other side has in a batch.
    room = {} if model.device.type == "cuda" else _cpu_room(longest, len(texts))
    with torch.inference_mode():
        found = model.model.generate_batch(  # type: ignore[operator]
            [list(row) for row in prompts.tokens],
            generation_config=generator._config(prompts.padding),
            continuous_batching_config=ContinuousBatchingConfig(**room),
        )
    # Requests are numbered as they are given.
    numbered = sorted(found.items(), key=lambda item: int(item[0].rpartition("_")[2]))
    ends = set(generator._ends)
    return {
        name: tuple(token for token in output.generated_tokens if token not in ends)
        for name, (_, output) in zip(prompts.ids, numbered, strict=True)
    }


def _cpu_room(longest: int, prompts: int) -> dict[str, Any]:
    page = 32
    return {"page_size": page, "num_blocks": (longest // page + 1) * min(prompts, 256), "max_batch_tokens": 2048}


def _generator(shape: Shape, model: LoadedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
    from polysafe.generate.completion import Sampling
    from polysafe.generate.local import LocalGenerator

    template: Any = "chat" if shape.layers == 0 else "raw"
    sampling = Sampling(max_tokens=shape.budget)
    return LocalGenerator(model, tokenizer, sampling, template=template, batch_tokens=shape.batch_tokens)


def _ask(name: str, text: str) -> Any:
    from polysafe.generate.completion import Ask

    return Ask(name, text)


def _texts(shape: Shape, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Neutral words, as many as MultiJail's prompts have tokens."""
    draw = random.Random(0)
    special = set(tokenizer.all_special_tokens)
    words = [
        word for word in sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__) if word not in special
    ]
    return {
        str(n): " ".join(draw.choices(words, k=length_of(draw.random(), shape.longest))) for n in range(shape.prompts)
    }


def length_of(share: float, longest: int) -> int:
    """Tokens of the prompt at a share of those of MultiJail, sorted by length."""
    above = next(place for place, bound in enumerate(SHARES) if bound > share)
    low, high = SHARES[above - 1], SHARES[above]
    length = LENGTHS[above - 1] + (share - low) / (high - low) * (LENGTHS[above] - LENGTHS[above - 1])
    return min(longest, round(length))


def _toy() -> tuple[LoadedModel, PreTrainedTokenizerBase]:
    from polysafe.organism.packaged import packaged_family
    from polysafe.probe.render import load_tokenizer

    folder = packaged_family().members["base"]
    return load_folder(folder), load_tokenizer(folder)


def _random_model(shape: Shape, device: str) -> tuple[LoadedModel, PreTrainedTokenizerBase]:
    """A random Llama made on the device, with the parts of a loaded model that generating needs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=SPREAD,
        dtype=shape.dtype,
    )
    dtype: torch.dtype = getattr(torch, shape.dtype)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    ends = random.Random(1).sample(range(10, shape.vocabulary), shape.vocabulary // ENDS)
    model.generation_config.eos_token_id = ends
    loaded = SimpleNamespace(
        model=model, device=torch.device(device), max_tokens=4096, source=SimpleNamespace(name="random")
    )
    return cast("LoadedModel", loaded), _word_tokenizer(shape.vocabulary)


def _word_tokenizer(size: int) -> PreTrainedTokenizerBase:
    """A tokenizer with as many words as the model has tokens, so that texts are tokens and nothing is downloaded."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, **{f"w{number}": number for number in range(1, size)}}
    backend = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>")


def _measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    said: dict[str, Any] = {}
    file = options.folder / "generate" / "answers.json"
    file.parent.mkdir(parents=True, exist_ok=True)

    def measure(side: str) -> Measurement:
        given = ("--side", side, "--shapes", name, "--device", options.device, "--answers", str(file))
        taken = in_process("benchmarks.speed.generate", *given)
        said[side] = json.loads(file.read_text(encoding="utf-8"))
        return taken

    runs = timing.in_turn(options.runs, options.sides, measure)
    facts = _facts(SHAPES[name], {side: each["answers"] for side, each in said.items()})
    memory = {side: each["device_mib"] for side, each in said.items()}
    _print(name, runs, facts, memory)
    return {"shape": asdict(SHAPES[name]), **facts, "device_mib": memory, "runs": runs}


def _facts(shape: Shape, said: Mapping[str, Mapping[str, Sequence[int]]]) -> dict[str, Any]:
    first = next(iter(said.values()))
    lengths = [len(answer) for answer in first.values()]
    return {
        "equal": {
            side: sum(answers[name] == first[name] for name in first) / len(first) for side, answers in said.items()
        },
        "tokens": sum(lengths),
        "cut_by_the_budget": sum(length >= shape.budget for length in lengths) / len(lengths),
    }


def _print(name: str, runs: timing.Sides, facts: Mapping[str, Any], memory: Mapping[str, float]) -> None:
    first = next(iter(runs))
    count, tokens = len(runs[first]), facts["tokens"]
    print(f"\n{name}: {SHAPES[name].prompts} prompts, {tokens} new tokens, median of {count} runs")
    speed = timing.Column("tokens/s", 1, lambda _, median: tokens / median.wall)
    device = timing.Column("device MiB", 0, lambda side, _: memory[side])
    timing.print_sides(runs, timing.WALL, timing.CPU, speed, timing.PRIVATE, device)
    if {"continuous", "sorted"} <= set(runs):
        for figure in ("wall", "cpu"):
            print(f"continuous / sorted, {figure}: {timing.ratio_of(runs['continuous'], runs['sorted'], figure):.2f}")
    for side, share in facts["equal"].items():
        print(f"{side}: {share:.1%} of answers are those of {first}")
    print(f"cut by the budget: {facts['cut_by_the_budget']:.1%}")


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("torch", "transformers")}


if __name__ == "__main__":
    main()
