"""Streaming capture against "concatenate everything", and against the bare forward pass: time and memory.

    python -m benchmarks.speed.capture --prompts 256 1024 --runs 3 --output benchmarks/results/capture.json
    python -m benchmarks.speed.capture --device cuda --shape llama-3.1-8b --prompts 512 --sides forward rows moments

All sides run in one call, alternating, each in a fresh process, on the same random Llama and the same prompts; that
they agree is checked before anything is timed. `concatenate` is the shape of published programs: every token of every
layer is kept in float32, in the order of the prompts, and statistics are computed at the end. Ratios are of CPU time,
on an accelerator of wall time; agreement is checked on the small shape.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.frame import timing
from benchmarks.frame.llama import WIDE, Shape, load_random
from benchmarks.frame.measure import Measurement, in_process, measured

if TYPE_CHECKING:
    import torch

    from polysafe.probe.model import LoadedModel
    from polysafe.probe.render import RenderedPrompts

SHAPES = {
    "small": Shape(8, 8, 8, 256, 704, 128),
    "llama-3.1-8b": Shape(*WIDE, 512, 128256, "bfloat16"),
}
"""The tokens of a shape are those of its longest prompt."""
BATCH = 16
SIDES = ("forward", "rows", "moments", "concatenate")
Result = dict[int, "torch.Tensor"]


def main() -> None:
    """Measures every side with every number of prompts and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    timing.add_side(parser, SIDES)
    parser.add_argument("--prompts", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asdict(_measure_side(options))))
        return
    check_agreement(options)
    results = {str(count): _measure(count, options) for count in options.prompts}
    for count, sides in results.items():
        _print(count, sides, timing.clock_of(options.device))
    timing.save(options.output, {"shape": asdict(SHAPES[options.shape]), "prompts": results}, options.device)


def check_agreement(options: argparse.Namespace) -> None:
    """Refuses to time sides that do not compute the same."""
    import torch

    model = load_random(SHAPES["small"], options.folder / "capture" / "small", options.device)
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
    model = load_random(shape, options.folder / "capture" / options.shape, options.device)
    prompts = _prompts(shape, options.prompts[0])
    _WORK[options.side](model, prompts.select(range(BATCH)))

    def work() -> None:
        _WORK[options.side](model, prompts)
        if options.device != "cpu":
            torch.cuda.synchronize()

    return measured(work)


def _prompts(shape: Shape, count: int) -> RenderedPrompts:
    """Random prompts of mixed lengths, a few of them long."""
    from polysafe.probe.render import RenderedPrompts

    draw = random.Random(0)
    middle = math.log(shape.tokens / 4)
    lengths = [min(shape.tokens, round(draw.lognormvariate(middle, 0.6)) + 2) for _ in range(count)]
    tokens = tuple(tuple(draw.randrange(shape.vocabulary) for _ in range(length)) for length in lengths)
    ids = tuple(map(str, range(count)))
    return RenderedPrompts(ids, ids, tokens, 0, "raw", "none")


def _measure(count: int, options: argparse.Namespace) -> timing.Sides:
    shared = ["--folder", str(options.folder), "--shape", options.shape, "--device", options.device]

    def measure(side: str) -> Measurement:
        return in_process("benchmarks.speed.capture", "--side", side, "--prompts", str(count), *shared)

    return timing.in_turn(options.runs, options.sides, measure)


def _print(count: str, sides: timing.Sides, clock: str) -> None:
    print(f"\n{count} prompts, median of {len(next(iter(sides.values())))} runs")
    timing.print_sides(sides, timing.WALL, timing.CPU, timing.PEAK, timing.PRIVATE)
    for ours, theirs in (("rows", "forward"), ("moments", "forward"), ("rows", "concatenate")):
        if ours in sides and theirs in sides:
            print(f"{ours} / {theirs}: {clock} {timing.ratio_of(sides[ours], sides[theirs], clock):.2f} x")


if __name__ == "__main__":
    main()
