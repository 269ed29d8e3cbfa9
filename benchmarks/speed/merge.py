"""Swap and blend against the disk, `cp` and the shape of the published programs; TIES and DARE against a blend.

    python -m benchmarks.speed.merge --sizes 0.5 2 --runs 3 --output benchmarks/results/merge.json

Both sides of every pair run in one call, alternating, each in a fresh process; the page cache is warm for all of them
and every writer flushes to the disk. Ratios are medians over the runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement, in_process
from benchmarks.frame.synthetic import write_trio

SIDES = ("cp", "hashed", "swap", "disk", "blend", "ties", "dare", "score", "published")
PAIRS: tuple[tuple[str, str, dict[str, float]], ...] = (
    ("swap", "cp", {"wall": 1.1}),
    ("swap", "hashed", {}),
    ("blend", "disk", {"wall": 1.1}),
    ("blend", "published", {}),
    ("ties", "blend", {"cpu": 2.0}),
    ("dare", "blend", {"cpu": 2.0}),
)
"""What is compared, and the ratio that is aimed at."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every side at every size and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.5, 2.0], help="GB per checkpoint")
    parser.add_argument("--model", type=Path, help="folder of a model, to be measured instead: it stands for all three")
    options = parser.parse_args(arguments)
    if options.model:
        trios = {options.model.name: dict.fromkeys(("base", "safety", "language"), options.model)}
    else:
        trios = {f"{size:g} GB": write_trio(options.folder, size) for size in options.sizes}
    results = {name: _measure(trio, options.runs, options.folder, options.sides) for name, trio in trios.items()}
    for name, sides in results.items():
        _print(name, sides)
    timing.save(options.output, {"checkpoints": results})


def _measure(paths: dict[str, Path], runs: int, folder: Path, wanted: Sequence[str]) -> timing.Sides:
    target = folder / "out"
    _warm(paths)

    def measure(side: str) -> Measurement:
        shutil.rmtree(target, ignore_errors=True)
        try:
            return in_process("benchmarks.speed.merge_sides", side, str(target), *map(str, paths.values()))
        finally:
            shutil.rmtree(target, ignore_errors=True)

    return timing.in_turn(runs, wanted, measure)


def _warm(paths: dict[str, Path]) -> None:
    for path in paths.values():
        with (path / "model.safetensors").open("rb") as file:
            while file.read(1 << 24):
                pass


def _print(name: str, sides: timing.Sides) -> None:
    print(f"\n{name} per checkpoint, median of {len(next(iter(sides.values())))} runs")
    read = timing.Column("read GB", 2, lambda _, median: median.bytes_read / 1e9)
    written = timing.Column("written GB", 2, lambda _, median: median.bytes_written / 1e9)
    timing.print_sides(sides, timing.WALL, timing.CPU, read, written, timing.PEAK, timing.PRIVATE)
    for ours, theirs, targets in (pair for pair in PAIRS if {*pair[:2]} <= set(sides)):
        ratios = {key: f"{timing.ratio_of(sides[ours], sides[theirs], key):.2f} x" for key in ("wall", "cpu")}
        wanted = {key: f" (target {target:g} x)" for key, target in targets.items()}
        print(
            f"{ours} / {theirs}: " + ", ".join(f"{key} {ratio}{wanted.get(key, '')}" for key, ratio in ratios.items())
        )


if __name__ == "__main__":
    main()
