"""What a model of 405 B and an audit in 100 languages take: rates are measured here, machines are stated.

    python -m benchmarks.speed.scale --output benchmarks/results/scale.json

The checkpoints are headers of their real shape; what a core does is measured on small ones, in CPU seconds. The tables
of docs/scale.md are made of the file of results (`python -m benchmarks.speed.scale --tables FILE`).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.frame import timing
from benchmarks.frame.hollow import LLAMA_405B, write_hollow
from benchmarks.frame.markdown import table
from benchmarks.frame.synthetic import write_trio
from polysafe.engine.forecast import Forecast, Machines, Questions, Rates, forecast
from polysafe.text.units import format_bytes, format_seconds

LANGUAGES = ("bn", "sw", "te", "yo")
GB = 1e9
STATED: Mapping[str, tuple[int, Machines]] = {
    "one expert, one machine, its own NVMe disk": (1, Machines(1, 3 * GB, None, 64, 10.0)),
    "four experts, one recipe, the same machine": (4, Machines(1, 3 * GB, None, 64, 10.0)),
    "four experts, 8 machines, shared storage": (4, Machines(8, 20 * GB, 3 * GB, 64, 10.0)),
    "four experts, 32 machines, the same storage": (4, Machines(32, 20 * GB, 3 * GB, 64, 10.0)),
}
"""Name -> experts and machines: bytes per second of storage and network, cores and dollars are stated, not measured."""
ASKED = Questions(prompts=1000, languages=100, tokens=256, speed=2000.0)
"""An audit of each model: tokens per second of a machine are stated, not measured."""
AUDITS: Mapping[str, tuple[int, Machines]] = {
    "one machine": (1, Machines(1, 20 * GB, 3 * GB, 64, 30.0)),
    "8 machines": (1, Machines(8, 20 * GB, 3 * GB, 64, 30.0)),
    "32 machines": (1, Machines(32, 20 * GB, 3 * GB, 64, 30.0)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures rates, plans, and prints the tables; or prints those of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=timing.FOLDER)
    parser.add_argument("--size", type=float, default=0.5, help="GB of the checkpoints that rates are measured on")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tables", type=Path, help="file of results whose tables are printed")
    options = parser.parse_args(arguments)
    if options.tables:
        content = json.loads(options.tables.read_text(encoding="utf-8"))
    else:
        rates = measure_rates(options.folder, options.size)
        with tempfile.TemporaryDirectory() as temporary:
            content = {"load": os.getloadavg()[0], "rates": asdict(rates), **planned(Path(temporary), rates)}
        timing.save(options.output, content)
    print("\n\n".join(tables(content)))


def measure_rates(folder: Path, size: float) -> Rates:
    """What one core does, with the code that does it in a run."""
    from polysafe.checkpoint.digest import hash_file
    from polysafe.checkpoint.lora import open_reader
    from polysafe.checkpoint.opened import Source
    from polysafe.checkpoint.roles import classify
    from polysafe.checkpoint.source import open_checkpoint
    from polysafe.edits.edit import Edit, SourceRecord
    from polysafe.edits.operations import Blend
    from polysafe.edits.reader import EditedReader
    from polysafe.engine.local import tensor_blocks
    from polysafe.files import memory
    from polysafe.methods.scores import Movement, scored_tensors

    paths = write_trio(folder, size)
    with ExitStack() as stack:
        opened = {name: open_checkpoint(path) for name, path in paths.items()}
        readers = {name: stack.enter_context(open_reader(checkpoint)) for name, checkpoint in opened.items()}
        base, *experts = (Source(name, opened[name], classify(opened[name]), readers[name]) for name in opened)
        scored = scored_tensors(base.architecture)
        compared = sum(each.reader.spec(item.tensor).nbytes for item in scored for each in (base, *experts))
        stack.enter_context(memory.reading_again())
        norms = compared / _cpu(Movement(base, tuple(experts), scored).norms)
        (file,) = opened["base"].files
        hashing = file.stat().st_size / _cpu(lambda: hash_file(file))
        mixed = Blend(weights={"safety": 0.5, "language": 0.5})
        names = opened["language"].tensors
        records = {name: SourceRecord(origin=name) for name in ("safety", "language")}
        edit = Edit(start="language", steps=dict.fromkeys(names, (mixed,)), sources=records)
        edited = EditedReader(edit, {name: readers[name] for name in records})

        def mix() -> None:
            with ThreadPoolExecutor(max_workers=1) as pool:
                for name in names:
                    for block in tensor_blocks(edited, name, pool):
                        block.release()

        mixing = 2 * sum(spec.nbytes for spec in names.values()) / _cpu(mix)
    return Rates(norms, hashing, mixing)


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def planned(folder: Path, rates: Rates) -> dict[str, Any]:
    """Plans of everything that is stated, from headers of the real shape."""
    from polysafe.engine.job import resolve
    from polysafe.recipe.recipe import make_recipe

    for name in ("base", "safety", *LANGUAGES):
        write_hollow(folder / name, LLAMA_405B)
    jobs = []
    for language in LANGUAGES:
        swap = {"method": "layer_swap", "base": "base", "safety": "safety", "language": language}
        content = {
            "polysafe": 1,
            "sources": {name: {"path": str(folder / name)} for name in ("base", "safety", language)},
            "edits": [{**swap, "granularity": "layer", "outside": "language"}],
            "output": {"path": str(folder / "out" / language)},
        }
        jobs.append(resolve(make_recipe(content)))
    size = jobs[0].checkpoints["base"].total_bytes
    experts = {name: forecast(jobs[:n], where, None, rates).to_json() for name, (n, where) in STATED.items()}
    audits = {name: _audit(forecast(jobs[:n], where, ASKED, rates)) for name, (n, where) in AUDITS.items()}
    return {"bytes_of_the_model": size, "asked": asdict(ASKED), "edits": experts, "audits": audits}


def _audit(found: Forecast) -> dict[str, Any]:
    """The audit alone."""
    only = tuple(phase for phase in found.phases if phase.name == "audit")
    return replace(found, phases=only, notes=()).to_json()


def tables(content: Mapping[str, Any]) -> list[str]:
    """What the page on scale shows of a file of results."""
    rates = content["rates"]
    measured = [
        ("comparing weights (norms)", rates["norms"]),
        ("hashing files (SHA-256)", rates["hashing"]),
        ("blending weights", rates["mixing"]),
    ]
    return [
        table(["one core", "GB per CPU second"], [(name, f"{rate / 1e9:.2f}") for name, rate in measured]),
        table(
            ["edit", "read", "written", "over the network", "hours", "machine hours", "dollars", "longest part"],
            [_row(name, each) for name, each in content["edits"].items()],
        ),
        table(
            ["of these", "reads", "machines", "time", "waits for"],
            [
                (f"{name}: {phase['name']}", format_bytes(phase["read"]), str(phase["nodes"]), *_time(phase))
                for name, each in content["edits"].items()
                for phase in each["phases"]
            ],
        ),
        table(
            ["audit", "read", "hours", "machine hours", "dollars", "waits for"],
            [
                (
                    name,
                    format_bytes(each["phases"][0]["read"]),
                    f"{each['hours']:.1f}",
                    f"{each['node_hours']:.1f}",
                    f"{each['dollars']:,.0f}",
                    each["bottleneck"]["of"],
                )
                for name, each in content["audits"].items()
            ],
        ),
    ]


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    sums = [format_bytes(sum(phase[key] for phase in found["phases"])) for key in ("read", "written", "moved")]
    longest = f"{found['bottleneck']['phase']}: {found['bottleneck']['of']}"
    return (
        name,
        *sums,
        f"{found['hours']:.2f}",
        f"{found['node_hours']:.1f}",
        f"{found['dollars']:,.0f}",
        longest,
    )


def _time(phase: Mapping[str, Any]) -> tuple[str, str]:
    return format_seconds(phase["seconds"]), phase["bottleneck"]


if __name__ == "__main__":
    main()
