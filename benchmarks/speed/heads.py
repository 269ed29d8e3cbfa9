"""Effects of all attention heads: the row pass against a loop of patched forward passes, at equal scores.

    python -m benchmarks.speed.heads --runs 3 --output benchmarks/results/heads.json
    python -m benchmarks.speed.heads --device cuda --shapes llama-3.1-8b.float32 llama-3.1-8b --runs 2

One process per side and run, alternating, on the same random Llama and the same prompt; scores are compared before
anything is timed: refused above 1e-5 of the largest effect in float32, only printed in 16 bits, where the passes of
the loop differ from each other by more than that. Ratios are of CPU time, on an accelerator of wall time. `forward` is
one plain forward pass over the prompt; `loop` is the published shape, one head at a time; `layers` patches all heads of
a layer in one batch. The formula counts what the row pass computes, in forward passes:
1 + heads·(layers + 1) / (2·tokens).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.frame import timing
from benchmarks.frame.llama import WIDE, Shape, load_random
from benchmarks.frame.measure import Measurement, in_process, measured

if TYPE_CHECKING:
    import torch

    from polysafe.probe.answers import ScoredPrompt
    from polysafe.probe.model import LoadedModel

SIDES = ("forward", "rows", "layers", "loop")
SECONDS = 0.5
"""Cheap sides are repeated for about this long; what is printed is per prompt."""


SHAPES = {
    "L8 H8 D512 T128": Shape(8, 8, 8, 512, 1408, 128),
    "L8 H8 D512 T512": Shape(8, 8, 8, 512, 1408, 512),
    "L12 H12 D768 T256": Shape(12, 12, 4, 768, 2048, 256),
    "llama-3.1-8b.float32": Shape(*WIDE, 256, 128256),
    "llama-3.1-8b": Shape(*WIDE, 256, 128256, "bfloat16"),
}


def main() -> None:
    """Measures every side of every shape and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    timing.add_side(parser, SIDES)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES)[:3])
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asdict(measure_side(options.side, options.shapes[0], options.folder, options.device))))
        return
    results = {name: _measure(name, options) for name in options.shapes}
    for name, sides in results.items():
        _print(name, sides, timing.clock_of(options.device))
    timing.save(options.output, {"torch_threads": 1, "shapes": results}, options.device)


def measure_side(side: str, name: str, folder: Path, device: str) -> Measurement:
    """Seconds per prompt and memory of one side, in this process."""
    import torch

    torch.set_num_threads(1)
    model, prompt = _model(name, folder, device), _prompt(SHAPES[name])
    work = _work(side, model, prompt)
    work()
    repeats = max(1, round(SECONDS / max(1e-3, measured(work).wall)))

    def repeated() -> None:
        for _ in range(repeats):
            work()
        if device != "cpu":
            torch.cuda.synchronize()

    found = measured(repeated)
    return replace(found, wall=found.wall / repeats, cpu=found.cpu / repeats)


def check_agreement(name: str, folder: Path, device: str) -> float:
    """Largest difference of the row pass to the loop, as a share of the largest effect."""
    model = _model(name, folder, device)
    prompt = _prompt(SHAPES[name])
    rows, loop = (_work(side, model, prompt)() for side in ("rows", "loop"))
    effects, wanted = rows[1:] - rows[0], loop[1:] - loop[0]
    error = float((effects - wanted).abs().max() / wanted.abs().max())
    if error > 1e-5 and SHAPES[name].dtype == "float32":
        raise SystemExit(f"{name}: the sides differ by {error:.1e} of the largest effect")
    return error


def _work(side: str, model: LoadedModel, prompt: ScoredPrompt) -> Callable[[], torch.Tensor]:
    import torch

    from polysafe.probe.scorers import LayerScorer, RowScorer, patched_scores

    layout = model.architecture.heads
    assert layout is not None
    layers = model.parameters.num_layers
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(layers, layout.num_heads, layout.head_dim, generator=generator)

    def rows() -> torch.Tensor:
        with RowScorer(model, means) as scorer:
            return scorer.scores(prompt, "first")

    def loop() -> torch.Tensor:
        cells = [[(layer, head)] for layer in range(layers) for head in range(layout.num_heads)]
        return torch.cat([patched_scores(model, means, prompt, "first", cell) for cell in ([], *cells)])

    return {
        "forward": lambda: patched_scores(model, means, prompt, "first", []),
        "rows": rows,
        "layers": lambda: LayerScorer(model, means).scores(prompt, "first"),
        "loop": loop,
    }[side]


def _prompt(shape: Shape) -> ScoredPrompt:
    import random

    from polysafe.probe.answers import ScoredPrompt

    draw = random.Random(0)
    tokens = tuple(draw.randrange(shape.vocabulary) for _ in range(shape.tokens + 1))
    return ScoredPrompt("0", tokens[:-1], tokens[-1:], "")


def _model(name: str, folder: Path, device: str) -> LoadedModel:
    return load_random(SHAPES[name], folder / "heads" / name.replace(" ", "-"), device)


def _measure(name: str, options: argparse.Namespace) -> timing.Sides:
    if {"rows", "loop"} <= set(options.sides):  # the loop takes hours on large shapes
        print(f"{name}: largest difference {check_agreement(name, options.folder, options.device):.1e}")
    shared = ["--folder", str(options.folder), "--device", options.device, "--shapes", name]
    return timing.in_turn(
        options.runs, options.sides, lambda side: in_process("benchmarks.speed.heads", "--side", side, *shared)
    )


def _print(name: str, sides: timing.Sides, clock: str) -> None:
    print(
        f"\n{name}, per prompt, median of {len(next(iter(sides.values())))} runs; "
        f"formula {row_pass_in_forwards(SHAPES[name]):.2f} forwards"
    )
    forwards = timing.Column("forwards", 2, lambda side, _: timing.ratio_of(sides[side], sides["forward"], clock))
    timing.print_sides(sides, timing.WALL, timing.CPU, *([forwards] if "forward" in sides else []), timing.PRIVATE)
    for other in ("layers", "loop"):
        if {other, "rows"} <= set(sides):
            print(f"{other} / rows: {clock} {timing.ratio_of(sides[other], sides['rows'], clock):.1f} x")


def row_pass_in_forwards(shape: Shape) -> float:
    """What the row pass has to compute, in forward passes over the prompt."""
    return (shape.tokens + 1 + shape.heads * (shape.layers + 1) / 2) / shape.tokens


if __name__ == "__main__":
    main()
