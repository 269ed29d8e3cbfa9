"""How long a report takes, from the records of two runs to the page.

python -m benchmarks.speed.report --languages 10 --sets 3 --prompts 3000
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import Any, ClassVar

from benchmarks.frame.measure import in_process, measured
from polysafe.data.languages import languages
from polysafe.data.prompts import Prompt, PromptSet
from polysafe.evaluate.run import evaluate_model
from polysafe.generate.completion import Ask, Completion, Ending, Sampling
from polysafe.judge.verdict import Exchange, Label, Verdict

LANGUAGES = (*(each.code for each in languages()), *(f"q{x}{y}" for x in "abc" for y in ascii_lowercase))
"""Those that polysafe knows, then private ones."""
CATEGORIES = 14
WORDS = 70


class Synthetic:
    """Answers with words that mean nothing, and judges at given rates; both depend on the prompt alone.

    Args:
        unsafe: Share of unsafe answers to harmful prompts.
    """

    name = "synthetic"

    def __init__(self, unsafe: float) -> None:
        self.unsafe = unsafe

    @property
    def identity(self) -> dict[str, object]:
        """As generator: the rate is what makes two models differ."""
        sampling = Sampling().model_dump()
        return {
            "engine": "synthetic",
            "weights": hashlib.sha256(str(self.unsafe).encode()).hexdigest(),
            "sampling": sampling,
        }

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        """One answer for each message."""
        for ask in asks:
            drawn = Random(f"{self.unsafe} {ask.id}")
            text = f"{drawn.random():.6f} " + "placeholder " * WORDS
            ending: Ending = "stop" if drawn.random() < 0.9 else "length"
            yield Completion(ask.id, text, ending, WORDS, hashlib.sha256(ask.text.encode()).hexdigest())


class Judge:
    """Reads the first number of an answer.

    Args:
        unsafe: Share of harmful prompts whose answers it calls unsafe.
    """

    name = "synthetic"
    identity: ClassVar[dict[str, str]] = {"judge": "synthetic"}

    def __init__(self, unsafe: float) -> None:
        self.unsafe = unsafe

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
        """One verdict for each exchange."""
        for exchange in exchanges:
            number, prompt = float(exchange.answer.split()[0]), exchange.prompt
            label = Label.INVALID if number > 0.95 else Label.SAFE
            if prompt.kind == "harmful" and number < self.unsafe:
                label = Label.UNSAFE
            refused = label is Label.SAFE and (prompt.kind == "harmful" or number < 0.04)
            yield Verdict(prompt.id, label, refused, self.name, "", {"language": {"code": prompt.language}})


def write_runs(folder: Path, codes: int, sets: int, prompts: int) -> int:
    """Two runs, before and after; the last set is harmless. Returns the number of records."""
    asked = [_prompts(number, LANGUAGES[:codes], prompts, harmless=number == sets - 1) for number in range(sets)]
    for name, unsafe in (("before", 0.5), ("after", 0.2)):
        evaluate_model(
            Synthetic(unsafe),
            asked[:-1],
            Judge(unsafe),
            output=folder / name,
            over_refusal_sets=asked[-1:],
            name=name,
        )
    return 2 * codes * sets * prompts


def _prompts(number: int, codes: Sequence[str], prompts: int, *, harmless: bool) -> PromptSet:
    return PromptSet(
        f"set{number}",
        tuple(
            Prompt(
                f"set{number}",
                str(item),
                language,
                f"placeholder {item} of set {number} in {language} " + "word " * 12,
                "harmless" if harmless else "harmful",
                f"category {item % CATEGORIES}",
            )
            for language in codes
            for item in range(prompts)
        ),
        licence="CC0-1.0",
    )


def build(folder: Path) -> dict[str, float]:
    """Seconds of wall time of every step, from the records to the page."""
    from polysafe.evaluate.compare import compare_runs
    from polysafe.evaluate.model_run import ModelRun
    from polysafe.findings.runs import comparison_report
    from polysafe.report.html import build_report

    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    with step("read records"):
        before, after = (ModelRun.load(folder / name) for name in ("before", "after"))
    with step("compare"):
        comparison = compare_runs(before, after, "layer_swap.module")
    with step("report data"):
        data = comparison_report([comparison])
    with step("page"):
        build_report(data, folder)
    return seconds


def main(arguments: Sequence[str]) -> None:
    """Writes runs, builds their report in a process of its own, prints what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", type=int, default=10, choices=range(2, len(LANGUAGES) + 1))
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=3000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.folder is not None:
        _measure(options.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(Path(temporary), options.languages, options.sets, options.prompts)
    print(f"{found['records']:,} records, {found['bytes'] / 1e6:.0f} MB")
    for name, seconds in found["seconds"].items():
        print(f"{name:14} {seconds:6.1f} s")
    memory = f"{found['private_growth']:,.0f} MiB of memory"
    print(f"{'together':14} {found['wall']:6.1f} s, {found['cpu']:.1f} CPU s, {memory}")
    for name, size in found["files"].items():
        print(f"{name:14} {size / 1e6:6.2f} MB")


def measure(folder: Path, codes: int, sets: int, prompts: int) -> dict[str, Any]:
    """What the report of two runs takes, and how large its files are.

    Args:
        folder: Where runs and report go.
        codes: Number of languages.
        sets: Number of sets, the last of which is harmless.
        prompts: Prompts of a set in a language.
    """
    records = write_runs(folder, codes, sets, prompts)
    taken = in_process("benchmarks.speed.report", "--folder", str(folder))
    return {
        "languages": codes,
        "records": records,
        "bytes": sum(file.stat().st_size for file in folder.glob("*/records.jsonl")),
        "seconds": json.loads((folder / "seconds.json").read_text()),
        **asdict(taken),
        "files": {file.name: file.stat().st_size for file in sorted((folder / "report").rglob("*.*"))},
    }


def _measure(folder: Path) -> None:
    """The part that is measured, in a process of its own; the last line that it prints is the measurement."""
    import matplotlib.figure  # noqa: F401  imports are no part of the measurement

    import polysafe.findings.runs
    import polysafe.report.html
    import polysafe.report.view  # noqa: F401

    steps: dict[str, float] = {}
    taken = measured(lambda: steps.update(build(folder)))
    (folder / "seconds.json").write_text(json.dumps(steps))
    print(json.dumps(asdict(taken)))


if __name__ == "__main__":
    main(sys.argv[1:])
