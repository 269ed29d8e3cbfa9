"""Effects of all attention heads: the row pass against a loop of patched forward passes, at equal scores.

    python -m benchmarks.heads --runs 3 --output benchmarks/results/heads.json
    python -m benchmarks.heads --device cuda --shapes llama-3.1-8b.float32 llama-3.1-8b --runs 2

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
import os
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Measurement, in_process, measured

if TYPE_CHECKING:
    import torch

    from polysafe.probe.answers import ScoredPrompt
    from polysafe.probe.model import LoadedModel

SIDES = ("forward", "rows", "layers", "loop")
VOCABULARY = 2000
SECONDS = 0.5
"""Cheap sides are repeated for about this long; what is printed is per prompt."""


@dataclass(frozen=True)
class Shape:
    """Size of a random Llama, and length of the prompt."""

    layers: int
    heads: int
    kv_heads: int
    width: int
    inner: int
    tokens: int
    vocabulary: int = VOCABULARY
    dtype: str = "float32"

    @property
    def formula(self) -> float:
        """What the row pass has to compute, in forward passes over the prompt."""
        return (self.tokens + 1 + self.heads * (self.layers + 1) / 2) / self.tokens


SHAPES = {
    "L8 H8 D512 T128": Shape(8, 8, 8, 512, 1408, 128),
    "L8 H8 D512 T512": Shape(8, 8, 8, 512, 1408, 512),
    "L12 H12 D768 T256": Shape(12, 12, 4, 768, 2048, 256),
    "llama-3.1-8b.float32": Shape(32, 32, 8, 4096, 14336, 256, 128256),
    "llama-3.1-8b": Shape(32, 32, 8, 4096, 14336, 256, 128256, "bfloat16"),
}


def main() -> None:
    """Measures every side of every shape and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES)[:3])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-loop", action="store_true", help="leave out the sides that take hours on large shapes")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polysafe-benchmarks")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=SIDES, help="run one side and print its measurement")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asdict(measure_side(options.side, options.shapes[0], options.folder, options.device))))
        return
    results = {name: _measure(name, options) for name in options.shapes}
    for name, sides in results.items():
        _print(name, sides, "cpu" if options.device == "cpu" else "wall")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(options.device), "shapes": results}
        options.output.write_text(json.dumps(content, indent=1, default=asdict) + "\n", encoding="utf-8")


def machine(device: str) -> str:
    """What the numbers were measured on."""
    import torch

    name = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    return f"{platform.machine()}, {os.cpu_count()} cores, one torch thread, {name}, torch {torch.__version__}"


def measure_side(side: str, name: str, folder: Path, device: str) -> Measurement:
    """Seconds per prompt and memory of one side, in this process."""
    import torch

    torch.set_num_threads(1)
    model, prompt = _model(SHAPES[name], folder / "heads" / name.replace(" ", "-"), device), _prompt(SHAPES[name])
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
    model = _model(SHAPES[name], folder / "heads" / name.replace(" ", "-"), device)
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


def _model(shape: Shape, folder: Path, device: str) -> LoadedModel:
    os.environ.setdefault("POLYSAFE_CACHE", str(folder.parent.parent / "cache"))
    from polysafe.checkpoint.opened import Source
    from polysafe.checkpoint.reader import CheckpointReader
    from polysafe.checkpoint.roles import classify
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.probe.model import load_model

    write_model(shape, folder, device)
    checkpoint = open_checkpoint(folder)
    return load_model(Source("model", checkpoint, classify(checkpoint), CheckpointReader(checkpoint)), device)


def write_model(shape: Shape, folder: Path, device: str) -> None:
    """Writes the random Llama, unless it is there; large ones are drawn on the device."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if (folder / "config.json").exists():
        return
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2 * shape.tokens,
        tie_word_embeddings=False,
        dtype=getattr(torch, shape.dtype),
    )
    with torch.device(device):
        LlamaForCausalLM(config).to(config.dtype).save_pretrained(folder)


def _measure(name: str, options: argparse.Namespace) -> dict[str, list[Measurement]]:
    sides = [side for side in SIDES if not (options.no_loop and side in {"layers", "loop"})]
    if not options.no_loop:
        print(f"{name}: largest difference {check_agreement(name, options.folder, options.device):.1e}")
    results: dict[str, list[Measurement]] = {side: [] for side in sides}
    shared = ["--folder", str(options.folder), "--device", options.device, "--shapes", name]
    for _ in range(options.runs):
        for side in sides:
            results[side].append(in_process("benchmarks.heads", "--side", side, *shared))
    return results


def _print(name: str, sides: dict[str, list[Measurement]], time: str) -> None:
    runs = len(sides["rows"])
    print(f"\n{name}, per prompt, median of {runs} runs; formula {SHAPES[name].formula:.2f} forwards")
    print(f"{'':10} {'wall s':>9} {'CPU s':>9} {'forwards':>9} {'private +MiB':>13}")
    for side, found in sides.items():
        median = {key: statistics.median(asdict(run)[key] for run in found) for key in asdict(found[0])}
        ratio = ratio_of(found, sides["forward"], time)
        print(f"{side:10} {median['wall']:9.3f} {median['cpu']:9.3f} {ratio:9.2f} {median['private_growth']:13.1f}")
    for other in ("layers", "loop"):
        if other in sides:
            print(f"{other} / rows: {time} {ratio_of(sides[other], sides['rows'], time):.1f} x")


def ratio_of(ones: list[Measurement], others: list[Measurement], time: str) -> float:
    """Median over pairs of runs of the ratio of their `cpu` or `wall` seconds."""
    return statistics.median(getattr(a, time) / getattr(b, time) for a, b in zip(ones, others, strict=True))


if __name__ == "__main__":
    main()
