"""Swap and blend against the disk, `cp` and the shape of the published programs; TIES and DARE against a blend.

    python -m benchmarks.merge --sizes 0.5 2 --runs 3 --output benchmarks/results/merge.json

Both sides of every pair run in one call, alternating, each in a fresh process; the page cache is warm for all of them
and every writer flushes to the disk. Ratios are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import Measurement, in_process
from benchmarks.synthetic import write_trio

SIDES = ("cp", "swap", "disk", "blend", "ties", "dare", "score", "published")
PAIRS = (
    ("swap", "cp", {"wall": 1.3}),
    ("blend", "disk", {"wall": 1.5}),
    ("blend", "published", {}),
    ("ties", "blend", {"cpu": 2.0}),
    ("dare", "blend", {"cpu": 2.0}),
)
"""What is compared, and the ratio that is aimed at."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every side at every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.5, 2.0], help="GB per checkpoint")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "polysafe-benchmarks")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    results = {f"{size:g}": _measure(size, options.runs, options.folder) for size in options.sizes}
    for size, sides in results.items():
        _print(size, sides)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "gigabytes_per_checkpoint": results}
        options.output.write_text(json.dumps(content, indent=1, default=asdict) + "\n")


def _measure(size: float, runs: int, folder: Path) -> dict[str, list[Measurement]]:
    paths = write_trio(folder, size)
    _warm(paths)
    results: dict[str, list[Measurement]] = {side: [] for side in SIDES}
    for _ in range(runs):
        for side in SIDES:
            target = folder / "out"
            shutil.rmtree(target, ignore_errors=True)
            results[side].append(in_process("benchmarks.merge_sides", side, str(target), *map(str, paths.values())))
            shutil.rmtree(target, ignore_errors=True)
    return results


def _warm(paths: dict[str, Path]) -> None:
    for path in paths.values():
        with (path / "model.safetensors").open("rb") as file:
            while file.read(1 << 24):
                pass


def _print(size: str, sides: dict[str, list[Measurement]]) -> None:
    print(f"\n{size} GB per checkpoint, median of {len(next(iter(sides.values())))} runs")
    print(f"{'':10} {'wall s':>8} {'CPU s':>8} {'read GB':>8} {'written':>8} {'peak MiB':>9} {'private +MiB':>13}")
    for side, runs in sides.items():
        median = {key: statistics.median(asdict(run)[key] for run in runs) for key in asdict(runs[0])}
        print(
            f"{side:10} {median['wall']:8.2f} {median['cpu']:8.2f} {median['bytes_read'] / 1e9:8.2f} "
            f"{median['bytes_written'] / 1e9:8.2f} {median['peak_rss']:9.0f} {median['private_growth']:13.1f}"
        )
    for ours, theirs, targets in PAIRS:
        ratios = {key: f"{_ratio(sides[ours], sides[theirs], key):.2f} x" for key in ("wall", "cpu")}
        wanted = {key: f" (target {target:g} x)" for key, target in targets.items()}
        print(
            f"{ours} / {theirs}: " + ", ".join(f"{key} {ratio}{wanted.get(key, '')}" for key, ratio in ratios.items())
        )


def _ratio(ours: list[Measurement], theirs: list[Measurement], key: str) -> float:
    return statistics.median(float(asdict(a)[key] / asdict(b)[key]) for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
