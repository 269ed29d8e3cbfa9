"""What programs that time several sides share: options, runs in turn, medians, ratios, and the file of results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame.measure import Measurement

Sides = Mapping[str, Sequence[Measurement]]
"""Side -> its runs, in the order in which they were made."""
FOLDER = Path(tempfile.gettempdir()) / "polysafe-benchmarks"


def options_of(description: str | None, sides: Sequence[str]) -> argparse.ArgumentParser:
    """The options that every such program has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=sides, default=list(sides))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="models that are made, and caches")
    parser.add_argument("--output", type=Path, help="file of the results")
    return parser


def add_side(parser: argparse.ArgumentParser, sides: Sequence[str]) -> None:
    """The options of a program that is also the process of one run of one side."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", choices=sides, help="run one side and print its measurement")


def in_turn(runs: int, sides: Sequence[str], measure: Callable[[str], Measurement]) -> dict[str, list[Measurement]]:
    """Every side as often as asked, one after the other, so that a change of the machine meets all alike."""
    results: dict[str, list[Measurement]] = {side: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            results[side].append(measure(side))
    return results


@dataclass(frozen=True)
class Column:
    """One column of the table of sides.

    Attributes:
        heading: Its heading.
        digits: Digits behind the point.
        value: Side and its median measurement -> what is shown.
    """

    heading: str
    digits: int
    value: Callable[[str, Measurement], float]


WALL = Column("wall s", 3, lambda _, median: median.wall)
CPU = Column("CPU s", 3, lambda _, median: median.cpu)
PEAK = Column("peak MiB", 0, lambda _, median: median.peak_rss)
PRIVATE = Column("private +MiB", 1, lambda _, median: median.private_growth)


def print_sides(sides: Sides, *columns: Column) -> None:
    """A line for every side, of the medians of its runs."""
    print(" " * 12 + "".join(f" {column.heading:>12}" for column in columns))
    for side, runs in sides.items():
        median = median_of(runs)
        print(f"{side:12}" + "".join(f" {column.value(side, median):12.{column.digits}f}" for column in columns))


def median_of(runs: Sequence[Measurement]) -> Measurement:
    """The median of every figure by itself."""
    return Measurement(**{name: statistics.median(asdict(run)[name] for run in runs) for name in asdict(runs[0])})


def ratio_of(ones: Sequence[Measurement], others: Sequence[Measurement], figure: str) -> float:
    """Median over pairs of runs of the ratio of a figure, such as `cpu`."""
    ratios = (getattr(one, figure) / getattr(other, figure) for one, other in zip(ones, others, strict=True))
    return float(statistics.median(ratios))


def clock_of(device: str) -> str:
    """The seconds that ratios are of: of the processor where it does the work, else of the wall."""
    return "cpu" if device == "cpu" else "wall"


def save(output: Path | None, content: Mapping[str, Any], device: str = "cpu") -> None:
    """Writes results, and what they were measured on, to the file that was asked for."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": _machine(device), **content}
        output.write_text(json.dumps(content, indent=1, default=asdict) + "\n", encoding="utf-8")


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _machine(device: str) -> str:
    import torch

    name = torch.cuda.get_device_name() if device != "cpu" else "cpu"
    return f"{platform.machine()}, {os.cpu_count()} cores, {name}, torch {torch.__version__}"
