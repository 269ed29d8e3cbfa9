"""What a search costs: the share of a point that is not reading it, and what a second process brings.

    python -m benchmarks.speed.searching [--trials 24]
    python -m benchmarks.speed.searching --model MODEL --data DATA [--trials 12]

Both sides run in one go: the same space with one process and with two. Each line is one method. By default on the
packaged toy family: the blocks of a swap are decided from norms, the units of a sparse edit by running the model on
anchors. With a model, a sparse edit of it, fitted to PolyRefuse in Chinese and read by refusal log-odds.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
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


def space(name: str, trials: int) -> Space:
    """The default ranges of a method, read by the exact judge in the pivot and one language."""
    members = packaged_family().members
    return make_space(
        {
            "polysafe": 1,
            "sources": {member: {"path": str(folder)} for member, folder in members.items()},
            "edits": [{**ENTRIES[name], **resolve(name).ranges(LAYERS)}],
            "output": {"path": str(Path("nowhere").absolute())},
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


def real_space(model: Path, data: Path, trials: int) -> Space:
    """The default ranges of a sparse edit of a model, read by refusal log-odds."""
    layers = classify(open_checkpoint(model)).num_layers
    anchors = {
        "harmful": {"set": "polyrefuse.train", "limit": 40},
        "harmless": {"set": "polyrefuse.harmless.train", "limit": 40},
    }
    entry = {"method": "sparse_edit", "model": "model", "pivot": "en", "languages": ["zh"], "anchors": anchors}
    return make_space(
        {
            "polysafe": 1,
            "data": str(data),
            "sources": {"model": {"path": str(model)}},
            "edits": [{**entry, **resolve("sparse_edit").ranges(layers)}],
            "output": {"path": str(model.parent / "nowhere")},
            "validation": {
                "languages": ["en", "zh"],
                "safety": ["multijail.validation"],
                "over_refusal": ["polyrefuse.harmless.val"],
                "limit": 24,
            },
            "search": {"trials": trials, "seed": 0},
        }
    )


def measured(searched: Space, workers: int) -> dict[str, float]:
    """Seconds of a search, and what its points took."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        wall, processor = time.perf_counter(), _processor()
        found = search(searched, output / "search", workers=workers)
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
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args(arguments)
    spaces = {name: space(name, options.trials) for name in ENTRIES}
    if options.model is not None:
        spaces = {"sparse_edit": real_space(options.model.absolute(), options.data.absolute(), options.trials)}
    print(f"{options.trials} points each")
    for name, searched in spaces.items():
        one, two = (measured(searched, workers) for workers in (1, 2))
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
