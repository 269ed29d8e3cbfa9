"""What a second process brings to the quickstart, start and report included; both have to leave the same bytes.

    python -m benchmarks.speed.quickstart --runs 3 --output benchmarks/results/quickstart.json

Each side is the whole command with a cache of its own, so that nothing is known from before. A process computes with
one thread. Compared are records, models and factors of edits, file by file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement, of_command
from polysafe.checkpoint.digest import hash_file

WORKERS = {"one": 1, "two": 2}
COMPARED = ("runs/*/records.jsonl", "models/**/*.safetensors")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both sides in turn and prints the table."""
    parser = timing.options_of(__doc__, tuple(WORKERS))
    options = parser.parse_args(arguments)
    left: dict[str, dict[str, str]] = {}

    def measure(side: str) -> Measurement:
        folder = options.folder / "quickstart"
        timing.remove(folder)
        given = ["quickstart", "--output", str(folder / "out"), "--workers", str(WORKERS[side]), "--quiet"]
        found = of_command([sys.executable, "-m", "polysafe", *given], {"POLYSAFE_CACHE": str(folder / "cache")})
        left[side] = _digests(folder / "out")
        timing.remove(folder)
        return found

    sides = timing.in_turn(options.runs, options.sides, measure)
    timing.print_sides(sides, timing.WALL, timing.CPU, timing.PEAK)
    files = {len(digests) for digests in left.values()}
    same = all(digests == next(iter(left.values())) for digests in left.values())
    print(f"{max(files)} files, {'the same' if same else 'NOT the same'} to the byte")
    if {*WORKERS} <= {*sides}:
        print(f"one / two: {timing.ratio_of(sides['one'], sides['two'], 'wall'):.2f} of the wall time (target 1.7)")
    timing.save(options.output, {"files": max(files), "same": same, "sides": sides})


def _digests(folder: Path) -> dict[str, str]:
    paths = [path for pattern in COMPARED for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): hash_file(path) for path in paths}


if __name__ == "__main__":
    main()
