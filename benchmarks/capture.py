"""Streaming capture against "concatenate everything", and against the bare forward pass: time and memory.

    python -m benchmarks.capture --prompts 256 1024 --runs 3 --output benchmarks/results/capture.json

All sides run in one call, alternating, each in a fresh process, on the same random Llama and the same prompts; that
they agree is checked before anything is timed. `concatenate` is the shape of published programs: every token of every
layer is kept in float32, in the order of the prompts, and statistics are computed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Measurement, in_process, measured

if TYPE_CHECKING:
    import torch

    from polysafe.probe.model import LoadedModel
    from polysafe.probe.render import RenderedPrompts

HIDDEN, INNER, LAYERS, VOCABULARY, LONGEST = 256, 704, 8, 2000, 128
BATCH = 16
SIDES = ("forward", "rows", "moments", "concatenate")
Result = dict[int, "torch.Tensor"]


def main() -> None:
    """Measures every side with every number of prompts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polysafe-benchmarks")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=SIDES, help="run one side and print its measurement")
    options = parser.parse_args()
    folder = options.folder / "capture"
    if options.side:
        print(json.dumps(asdict(measured(_prepared(options.side, folder, options.prompts[0])))))
        return
    write_model(folder)
    check_agreement(folder)
    results = {str(count): _measure(count, options) for count in options.prompts}
    for count, sides in results.items():
        _print(count, sides)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "prompts": results}
        options.output.write_text(json.dumps(content, indent=1, default=asdict) + "\n")


def write_model(folder: Path) -> None:
    """Writes the random Llama, unless it is there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "model.safetensors").exists():
        return
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=LONGEST,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def check_agreement(folder: Path) -> None:
    """Refuses to time sides that do not compute the same."""
    import torch

    model, prompts = _model(folder), _prompts(40)
    rows, moments, plain = (side(model, prompts) for side in (rows_side, moments_side, concatenate_side))
    for layer, x in plain.items():
        torch.testing.assert_close(rows[layer], x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(moments[layer], x.double().T @ x.double(), rtol=1e-4, atol=1e-4)


def forward_side(model: LoadedModel, prompts: RenderedPrompts) -> Result:
    """The bare forward pass up to the last layer, in the same batches: what no capture can beat by much."""
    import torch

    order = sorted(range(len(prompts)), key=lambda index: -len(prompts.tokens[index]))
    for start in range(0, len(order), BATCH):
        batch = prompts.batch(order[start : start + BATCH])
        with torch.no_grad():
            model.model.base_model(**vars(batch), use_cache=False)
    return {}


def rows_side(model: LoadedModel, prompts: RenderedPrompts) -> Result:
    """Ours, one row per prompt and layer."""
    from polysafe.probe.capture import capture
    from polysafe.probe.stores import Rows

    got = capture(model, prompts, into=Rows(), batch_size=BATCH)
    return {layer: got[layer] for layer in got.store.layers}


def moments_side(model: LoadedModel, prompts: RenderedPrompts) -> Result:
    """Ours, moments only."""
    from polysafe.probe.capture import capture
    from polysafe.probe.stores import Moments

    got = capture(model, prompts, into=Moments(), batch_size=BATCH)
    return {layer: got[layer].xx.total for layer in got.store.layers}


def concatenate_side(model: LoadedModel, prompts: RenderedPrompts) -> Result:
    """The whole model in the order of the prompts; every token of every layer is kept, then pooled."""
    import torch

    kept: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(LAYERS)}
    handles = []
    for layer in kept:
        projection = model.model.get_submodule(f"model.layers.{layer}.mlp.gate_proj")
        handles.append(projection.register_forward_hook(lambda _m, args, _o, at=layer: kept[at].append(args[0])))
    for start in range(0, len(prompts), BATCH):
        indices = range(start, min(start + BATCH, len(prompts)))
        with torch.no_grad():
            model.model(**vars(prompts.batch(indices)), use_cache=False)
    for handle in handles:
        handle.remove()
    tokens = {layer: torch.cat([batch.flatten(0, 1).float() for batch in batches]) for layer, batches in kept.items()}
    lengths = [batch.shape[:2] for batch in kept[0]]
    ends = torch.tensor([length for count, length in lengths for _ in range(count)]).cumsum(0) - 1
    return {layer: everything[ends] for layer, everything in tokens.items()}


_WORK: dict[str, Callable[[LoadedModel, RenderedPrompts], Result]] = {
    "forward": forward_side,
    "rows": rows_side,
    "moments": moments_side,
    "concatenate": concatenate_side,
}


def _prepared(side: str, folder: Path, count: int) -> Callable[[], object]:
    """The work of a side, with model and prompts loaded and a batch run before, so that neither is measured."""
    model, prompts = _model(folder), _prompts(count)
    _WORK[side](model, prompts.select(range(BATCH)))
    return lambda: _WORK[side](model, prompts)


def _model(folder: Path) -> LoadedModel:
    os.environ["POLYSAFE_CACHE"] = str(folder.parent / "cache")
    from polysafe.checkpoint.reader import CheckpointReader
    from polysafe.checkpoint.roles import classify
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.methods.base import Source
    from polysafe.probe.model import load_model

    checkpoint = open_checkpoint(folder)
    return load_model(Source("model", checkpoint, classify(checkpoint), CheckpointReader(checkpoint)))


def _prompts(count: int) -> RenderedPrompts:
    """Random prompts of mixed lengths, a few of them long."""
    from polysafe.probe.render import RenderedPrompts

    draw = random.Random(0)
    lengths = [min(LONGEST, round(draw.lognormvariate(3.5, 0.6)) + 2) for _ in range(count)]
    tokens = tuple(tuple(draw.randrange(VOCABULARY) for _ in range(length)) for length in lengths)
    ids = tuple(map(str, range(count)))
    return RenderedPrompts(ids, ids, tokens, 0, "raw", "none")


def _measure(count: int, options: argparse.Namespace) -> dict[str, list[Measurement]]:
    results: dict[str, list[Measurement]] = {side: [] for side in SIDES}
    shared = ["--folder", str(options.folder), "--prompts", str(count)]
    for _ in range(options.runs):
        for side in SIDES:
            results[side].append(in_process("benchmarks.capture", "--side", side, *shared))
    return results


def _print(count: str, sides: dict[str, list[Measurement]]) -> None:
    print(f"\n{count} prompts, median of {len(sides['rows'])} runs")
    print(f"{'':12} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9} {'private +MiB':>13}")
    for side, runs in sides.items():
        median = {key: statistics.median(asdict(run)[key] for run in runs) for key in asdict(runs[0])}
        print(
            f"{side:12} {median['wall']:8.2f} {median['cpu']:8.2f} "
            f"{median['peak_rss']:9.0f} {median['private_growth']:13.1f}"
        )
    for ours, theirs in (("rows", "forward"), ("moments", "forward"), ("rows", "concatenate")):
        ratio = statistics.median(a.cpu / b.cpu for a, b in zip(sides[ours], sides[theirs], strict=True))
        print(f"{ours} / {theirs}: CPU {ratio:.2f} x")


if __name__ == "__main__":
    main()
