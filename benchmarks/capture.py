"""Streaming capture against "concatenate everything", and against the bare forward pass: time and memory.

    python -m benchmarks.capture --prompts 256 1024 --runs 3 --output benchmarks/results/capture.json
    python -m benchmarks.capture --device cuda --shape llama-3.1-8b --prompts 512 --sides forward rows moments

All sides run in one call, alternating, each in a fresh process, on the same random Llama and the same prompts; that
they agree is checked before anything is timed. `concatenate` is the shape of published programs: every token of every
layer is kept in float32, in the order of the prompts, and statistics are computed at the end. Ratios are of CPU time,
on an accelerator of wall time; agreement is checked on the small shape.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.heads import Shape, machine, ratio_of, write_model
from benchmarks.measure import Measurement, in_process, measured

if TYPE_CHECKING:
    import torch

    from polysafe.probe.model import LoadedModel
    from polysafe.probe.render import RenderedPrompts

SHAPES = {
    "small": Shape(8, 8, 8, 256, 704, 128),
    "llama-3.1-8b": Shape(32, 32, 8, 4096, 14336, 512, 128256, "bfloat16"),
}
"""The tokens of a shape are those of its longest prompt."""
BATCH = 16
SIDES = ("forward", "rows", "moments", "concatenate")
Result = dict[int, "torch.Tensor"]


def main() -> None:
    """Measures every side with every number of prompts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polysafe-benchmarks")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=SIDES, help="run one side and print its measurement")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asdict(_measure_side(options))))
        return
    check_agreement(options)
    results = {str(count): _measure(count, options) for count in options.prompts}
    for count, sides in results.items():
        _print(count, sides, "cpu" if options.device == "cpu" else "wall")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(options.device), "shape": asdict(SHAPES[options.shape]), "prompts": results}
        options.output.write_text(json.dumps(content, indent=1, default=asdict) + "\n")


def check_agreement(options: argparse.Namespace) -> None:
    """Refuses to time sides that do not compute the same."""
    import torch

    model = _model(SHAPES["small"], options.folder / "capture" / "small", options.device)
    prompts = _prompts(SHAPES["small"], 40)
    rows, moments, plain = (side(model, prompts) for side in (rows_side, moments_side, concatenate_side))
    for layer, x in plain.items():
        torch.testing.assert_close(rows[layer], x.cpu(), rtol=1e-4, atol=1e-5)
        wanted = x.cpu().double()
        torch.testing.assert_close(moments[layer], wanted.T @ wanted, rtol=1e-4, atol=1e-4)


def forward_side(model: LoadedModel, prompts: RenderedPrompts) -> Result:
    """The bare forward pass up to the last layer, in the same batches: what no capture can beat by much."""
    import torch

    order = sorted(range(len(prompts)), key=lambda index: -len(prompts.tokens[index]))
    for start in range(0, len(order), BATCH):
        batch = prompts.batch(order[start : start + BATCH]).to(model.device)
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

    kept: dict[int, list[torch.Tensor]] = {layer: [] for layer in range(model.parameters.num_layers)}
    handles = []
    for layer in kept:
        projection = model.model.get_submodule(f"model.layers.{layer}.mlp.gate_proj")
        handles.append(projection.register_forward_hook(lambda _m, args, _o, at=layer: kept[at].append(args[0])))
    for start in range(0, len(prompts), BATCH):
        indices = range(start, min(start + BATCH, len(prompts)))
        with torch.no_grad():
            model.model(**vars(prompts.batch(indices).to(model.device)), use_cache=False)
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


def _measure_side(options: argparse.Namespace) -> Measurement:
    """The work of one side, with model and prompts loaded and a batch run before, so that neither is measured."""
    import torch

    shape = SHAPES[options.shape]
    model = _model(shape, options.folder / "capture" / options.shape, options.device)
    prompts = _prompts(shape, options.prompts[0])
    _WORK[options.side](model, prompts.select(range(BATCH)))

    def work() -> None:
        _WORK[options.side](model, prompts)
        if options.device != "cpu":
            torch.cuda.synchronize()

    return measured(work)


def _model(shape: Shape, folder: Path, device: str) -> LoadedModel:
    os.environ["POLYSAFE_CACHE"] = str(folder.parent / "cache")
    from polysafe.checkpoint.opened import Source
    from polysafe.checkpoint.reader import CheckpointReader
    from polysafe.checkpoint.roles import classify
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.probe.model import load_model

    write_model(shape, folder, device)
    checkpoint = open_checkpoint(folder)
    return load_model(Source("model", checkpoint, classify(checkpoint), CheckpointReader(checkpoint)), device)


def _prompts(shape: Shape, count: int) -> RenderedPrompts:
    """Random prompts of mixed lengths, a few of them long."""
    from polysafe.probe.render import RenderedPrompts

    draw = random.Random(0)
    middle = math.log(shape.tokens / 4)
    lengths = [min(shape.tokens, round(draw.lognormvariate(middle, 0.6)) + 2) for _ in range(count)]
    tokens = tuple(tuple(draw.randrange(shape.vocabulary) for _ in range(length)) for length in lengths)
    ids = tuple(map(str, range(count)))
    return RenderedPrompts(ids, ids, tokens, 0, "raw", "none")


def _measure(count: int, options: argparse.Namespace) -> dict[str, list[Measurement]]:
    results: dict[str, list[Measurement]] = {side: [] for side in options.sides}
    shared = ["--folder", str(options.folder), "--shape", options.shape, "--device", options.device]
    for _ in range(options.runs):
        for side in options.sides:
            results[side].append(in_process("benchmarks.capture", "--side", side, "--prompts", str(count), *shared))
    return results


def _print(count: str, sides: dict[str, list[Measurement]], time: str) -> None:
    print(f"\n{count} prompts, median of {len(sides['rows'])} runs")
    print(f"{'':12} {'wall s':>8} {'CPU s':>8} {'peak MiB':>9} {'private +MiB':>13}")
    for side, runs in sides.items():
        median = {key: statistics.median(asdict(run)[key] for run in runs) for key in asdict(runs[0])}
        print(
            f"{side:12} {median['wall']:8.2f} {median['cpu']:8.2f} "
            f"{median['peak_rss']:9.0f} {median['private_growth']:13.1f}"
        )
    for ours, theirs in (("rows", "forward"), ("moments", "forward"), ("rows", "concatenate")):
        if ours in sides and theirs in sides:
            print(f"{ours} / {theirs}: {time} {ratio_of(sides[ours], sides[theirs], time):.2f} x")


if __name__ == "__main__":
    main()
