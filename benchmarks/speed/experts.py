"""N language experts in one recipe against N recipes, and the second plan of one recipe.

    python -m benchmarks.speed.experts --size 0.5 --experts 4 --output benchmarks/results/experts.json

Of each side: bytes read as the kernel counts them (`rchar`), CPU seconds, private memory. "Alone" is what N commands
with nothing remembered do, "one by one" N commands that share the user's cache. Outputs are compared file by file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement, in_process, measured
from benchmarks.frame.synthetic import SMALL, write_trio

SIDES = (
    "plan together",
    "plan alone",
    "plan one by one",
    "plan again",
    "run together",
    "run alone",
    "run one by one",
)
TARGET = 1.15
RECIPE = """\
polysafe: 1
each: {language: LANGUAGES}
sources: SOURCES
edits:
  - {method: layer_swap, base: base, safety: safety, language: $language, granularity: layer, outside: language}
output: {path: OUT/$language}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every side in turn and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    parser.add_argument("--size", type=float, default=0.5, help="GB per checkpoint")
    parser.add_argument("--experts", type=int, default=4)
    options = parser.parse_args(arguments)
    timing.save(options.output, measure(options.size, options.experts, options.runs, options.folder, options.sides))


def measure(size: float, experts: int, runs: int, folder: Path, wanted: Sequence[str] = SIDES) -> dict[str, Any]:
    """Both sides in one go; prints them and returns what was measured."""
    models = write_trio(folder, size, others=[f"language{number}" for number in range(2, experts + 1)])
    found: dict[str, dict[str, str]] = {}

    def one(side: str) -> Measurement:
        work = folder / "experts"
        shutil.rmtree(work, ignore_errors=True)
        if side == "plan again":
            _measured_in("plan one by one", work, models)
        taken = _measured_in(side, work, models)
        if side.startswith("run"):
            found[side] = {str(file.relative_to(work)): sha for file, sha in _digests(work / "out")}
        shutil.rmtree(work, ignore_errors=True)
        return taken

    sides = timing.in_turn(runs, wanted, one)
    print(f"\n{experts} experts, {size:g} GB per checkpoint, median of {runs} runs")
    read = timing.Column("read GB", 3, lambda _, median: median.bytes_read / 1e9)
    timing.print_sides(sides, timing.WALL, timing.CPU, read, timing.PEAK, timing.PRIVATE)
    ratios = {}
    for what in ("plan", "run"):
        for other in ("alone", "one by one"):
            pair = (f"{what} together", f"{what} {other}")
            if {*pair} <= set(sides):
                ratios[f"{pair[0]} / {other}"] = timing.ratio_of(sides[pair[0]], sides[pair[1]], "bytes_read")
    limit = TARGET * (experts + 2) / (3 * experts)
    for name, ratio in ratios.items():
        print(
            f"{name}: {ratio:.3f} of the bytes" + (f" (target {limit:.3f})" if name == "plan together / alone" else "")
        )
    same = len({json.dumps(each, sort_keys=True) for each in found.values()}) <= 1
    print(f"outputs are {'the same to the byte' if same else 'NOT THE SAME'}")
    content = {"gigabytes_per_checkpoint": size, "experts": experts, "target": limit, "ratios_of_bytes_read": ratios}
    return {**content, "outputs_identical": same, "sides": sides}


def _digests(folder: Path) -> list[tuple[Path, str]]:
    from polysafe.checkpoint.digest import hash_file

    return [(file, hash_file(file)) for file in sorted(folder.rglob("*")) if file.is_file()]


def _measured_in(side: str, work: Path, models: dict[str, Path]) -> Measurement:
    names = [f"{name}={path}" for name, path in models.items()]
    return in_process("benchmarks.speed.experts", "--one", side, str(work), *names)


def _work(side: str, work: Path, models: dict[str, str]) -> Callable[[], object]:
    """What one side does, after everything has been imported and tried on models of a few kilobytes."""
    small = write_trio(work / "small", 0.0, SMALL)
    _carried_out("run together", work / "small", {name: str(path) for name, path in small.items()})()
    return _carried_out(side, work, models)


def _carried_out(side: str, work: Path, models: dict[str, str]) -> Callable[[], object]:
    from polysafe.recipe.each import parse_recipes
    from polysafe.workflows.run import plan_recipe, plan_recipes, run_recipe, run_recipes

    languages = [name for name in models if name not in ("base", "safety")]
    sources = json.dumps({name: {"path": path} for name, path in models.items()})
    text = RECIPE.replace("LANGUAGES", json.dumps(languages)).replace("SOURCES", sources)
    recipes = parse_recipes(text.replace("OUT", str(work / "out")))
    what, _, how = side.partition(" ")

    def together() -> None:
        os.environ["POLYSAFE_CACHE"] = str(work / "cache")
        made = list(plan_recipes(recipes)) if what == "plan" else list(run_recipes(recipes))
        failed = [each for each in made if isinstance(each, Exception)]
        if failed:
            raise failed[0]

    def alone() -> None:
        for number, recipe in enumerate(recipes):
            os.environ["POLYSAFE_CACHE"] = str(work / (f"cache{number}" if how == "alone" else "cache"))
            if what == "plan":
                plan_recipe(recipe)
            else:
                run_recipe(recipe)

    return together if how == "together" else alone


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        chosen, place, *named = sys.argv[2:]
        found = dict(name.split("=", 1) for name in named)
        print(json.dumps(asdict(measured(_work(chosen, Path(place), found)))))
    else:
        main()
