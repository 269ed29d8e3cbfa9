"""Whole commands, start and imports included, beside what the machine takes for the same bytes and beside mergekit.

    python -m benchmarks.speed.commands --size 0.5 --runs 3
    python -m benchmarks.speed.commands --model FOLDER                     # a real model and two experts made of it
    python -m benchmarks.speed.commands --mergekit ENVIRONMENT/bin/mergekit-yaml   # one that is there; made otherwise

Every side is a process, watched from outside: wall time, CPU seconds and bytes as the kernel counts them, private
memory as its largest number of anonymous pages. Nothing is remembered from before, but for `plan again`, and the page
cache is warm for all. `raw` reads three checkpoints, hashes them and writes one, each in a thread, and looks at
nothing: what a layer swap has to do at least (`frame/raw.py`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.frame import timing
from benchmarks.frame.measure import Measurement, of_command
from benchmarks.frame.synthetic import write_experts, write_trio

SIDES = ("cp", "raw", "swap", "blend", "mergekit", "plan", "plan again", "help", "import torch")
MERGEKIT = "mergekit==0.1.5"
EDITS = {
    "swap": "{method: layer_swap, base: base, safety: safety, language: language, granularity: layer}",
    "blend": "{method: soup, weights: {safety: 0.5, language: 0.5}}",
}
RECIPE = """\
polysafe: 1
sources: SOURCES
edits: [EDIT]
output: {path: OUT}
"""
LINEAR = """\
merge_method: linear
dtype: bfloat16
models:
  - {model: SAFETY, parameters: {weight: 0.5}}
  - {model: LANGUAGE, parameters: {weight: 0.5}}
"""
PAIRS = (("swap", "raw"), ("swap", "cp"), ("blend", "mergekit"), ("plan again", "plan"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every side in turn and prints the table."""
    parser = timing.options_of(__doc__, SIDES)
    parser.add_argument("--size", type=float, default=0.5, help="GB per checkpoint")
    parser.add_argument("--model", type=Path, help="folder of a model, to be measured instead, with experts made of it")
    parser.add_argument("--mergekit", type=Path, help="the program mergekit-yaml; by default an environment is made")
    options = parser.parse_args(arguments)
    if options.model:
        models = {"base": options.model, **write_experts(options.folder, options.model, ("safety", "language"))}
    else:
        models = write_trio(options.folder, options.size)
    if "mergekit" in options.sides and options.mergekit is None:
        options.mergekit = _environment(options.folder / "mergekit")
    work = options.folder / "commands"
    sides = timing.in_turn(options.runs, options.sides, lambda side: _one(side, work, models, options.mergekit))
    print(f"\n{options.model or f'{options.size:g} GB'} per checkpoint, median of {options.runs} runs")
    read = timing.Column("read GB", 2, lambda _, median: median.bytes_read / 1e9)
    timing.print_sides(sides, timing.WALL, timing.CPU, read, timing.PEAK, timing.PRIVATE)
    for ours, theirs in (pair for pair in PAIRS if {*pair} <= set(sides)):
        told = (f"{key} {timing.ratio_of(sides[ours], sides[theirs], key):.2f}" for key in ("wall", "cpu"))
        print(f"{ours} / {theirs}: {', '.join(told)}")
    timing.save(options.output, {"gigabytes_per_checkpoint": options.size, "sides": sides})


def _one(side: str, work: Path, models: Mapping[str, Path], mergekit: Path | None) -> Measurement:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = _command(side, work, models, mergekit)
    environment = {"POLYSAFE_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    if side == "plan again":
        of_command(command, environment)
    found = of_command(command, environment)
    shutil.rmtree(work, ignore_errors=True)
    return found


def _command(side: str, work: Path, models: Mapping[str, Path], mergekit: Path | None) -> list[str]:
    base, safety, language = (str(models[name]) for name in ("base", "safety", "language"))
    out, program = str(work / "out"), [sys.executable, "-m", "polysafe"]
    if side == "cp":
        return ["sh", "-c", 'cp -r "$0" "$1" && sync "$1/model.safetensors"', language, out]
    if side == "raw":
        return [sys.executable, "-m", "benchmarks.frame.raw", out, base, safety, language]
    if side == "mergekit":
        file = work / "linear.yaml"
        file.write_text(LINEAR.replace("SAFETY", safety).replace("LANGUAGE", language), encoding="utf-8")
        return [str(mergekit), str(file), out]
    if side == "help":
        return [*program, "--help"]
    if side == "import torch":
        return [sys.executable, "-c", "import torch"]
    edit = EDITS["blend" if side == "blend" else "swap"]
    sources = json.dumps({name: {"path": str(path)} for name, path in models.items()})
    file = work / "recipe.yaml"
    file.write_text(RECIPE.replace("SOURCES", sources).replace("EDIT", edit).replace("OUT", out), encoding="utf-8")
    return [*program, side.split(maxsplit=1)[0] if side.startswith("plan") else "run", str(file)]


def _environment(folder: Path) -> Path:
    """An environment with mergekit, made where it is not there; the torch of this one's version comes first."""
    program = folder / "bin" / "mergekit-yaml"
    if not program.exists():
        from importlib.metadata import version

        print(f"making an environment with {MERGEKIT}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for package in (f"torch=={version('torch').partition('+')[0]}", MERGEKIT):
            install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile", package]
            subprocess.run(install, check=True)
    return program


if __name__ == "__main__":
    main()
