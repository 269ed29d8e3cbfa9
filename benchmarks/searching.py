"""What a search costs: the share of a point that is not reading it, and what a second process brings.

    python -m benchmarks.searching [--trials 24]

Both sides run in one go on the packaged toy family: the same space with one process and with two. Each line is one
method: the blocks of a swap are decided from norms, the units of a sparse edit by running the model on anchors.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polysafe.methods.registry import resolve
from polysafe.organism.packaged import packaged_family
from polysafe.search.space import Space, make_space
from polysafe.workflows.search import search

LAYERS = 6
ENTRIES: Mapping[str, Mapping[str, Any]] = {
    "layer_swap": {"method": "layer_swap", "base": "base", "safety": "safety", "language": "qac"},
    "head_steering": {
        "method": "head_steering",
        "model": "base",
        "harmful": "harm",
        "languages": ["qac"],
        "tasks": "organism",
        "prompts": 25,
    },
    "sparse_edit": {"method": "sparse_edit", "model": "base", "languages": ["qac"], "anchors": "organism"},
}


def space(name: str, trials: int, output: Path) -> Space:
    """The default ranges of a method, read by the exact judge in the pivot and one language."""
    members = packaged_family().members
    return make_space(
        {
            "polysafe": 1,
            "sources": {member: {"path": str(folder)} for member, folder in members.items()},
            "edits": [{**ENTRIES[name], **resolve(name).ranges(LAYERS)}],
            "output": {"path": str(output / "nowhere")},
            "validation": {
                "languages": ["en", "qac"],
                "safety": ["organism"],
                "over_refusal": ["organism"],
                "judge": {"kind": "organism"},
                "limit": None,
            },
            "search": {"trials": trials, "seed": 0},
        }
    )


def measured(name: str, trials: int, workers: int) -> dict[str, float]:
    """Seconds of a search, and what its points took."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        wall, processor = time.perf_counter(), _processor()
        found = search(space(name, trials, output), output / "search", workers=workers)
        return {
            "wall": time.perf_counter() - wall,
            "processor": _processor() - processor,
            "deciding": found.seconds["deciding"],
            "reading": found.seconds["reading"],
            "points": float(len(found.points)),
        }


def _processor() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for every method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=24)
    options = parser.parse_args(arguments)
    print(f"{options.trials} points each")
    for name in ENTRIES:
        one, two = (measured(name, options.trials, workers) for workers in (1, 2))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name:14} one process {one['wall']:.0f} s ({one['processor']:.0f} CPU s), two {two['wall']:.0f} s "
            f"({two['processor']:.0f} CPU s): {one['wall'] / two['wall']:.2f} times as fast; a point takes "
            f"{(one['deciding'] + one['reading']) / one['points']:.2f} s, deciding is "
            f"{100 * one['deciding'] / one['reading']:.0f} % of reading; peak {peak:.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
