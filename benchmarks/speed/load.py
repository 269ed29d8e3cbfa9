"""What many prompts, rows and languages do: is anything lost or asked twice, and what does it take?

python -m benchmarks.speed.load --prompts 100000 --rows 1000000 --languages 100 --output benchmarks/results/load.json
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks.frame.failing import FailingServer, answer_to, failing_server
from benchmarks.frame.measure import in_process, measured
from benchmarks.frame.timing import save
from benchmarks.speed import report

KILLS = (0.1, 0.2, 0.3)
"""Shares of the prompts after which the process is killed; what is left is one run whose memory is watched."""
_EVERY = 0.1


@dataclass(frozen=True)
class Asked:
    """What came of asking many prompts.

    Attributes:
        prompts: Prompts of the file.
        kills: Times that the process was killed.
        calls: Requests that the server saw.
        failed: Those that it failed on purpose.
        lost: Prompts without a record, or with an answer to another prompt.
        doubled: Records beyond one of a prompt.
        again: Answers that were given a second time, as they were on their way when the process was killed.
        seconds: Wall time of all processes.
        memory: Share of the prompts answered -> resident MiB of the last process, seen from outside.
        peak: Its largest resident memory in MiB, the records and the report included.
    """

    prompts: int
    kills: int
    calls: int
    failed: int
    lost: int
    doubled: int
    again: int
    seconds: float
    memory: dict[str, float]
    peak: float


def ask(folder: Path, prompts: int, kills: Sequence[float] = KILLS) -> Asked:
    """Has a model of a server that fails asked every prompt by the command line, which is killed on the way."""
    table = write_rows(folder / "mine_en.csv", prompts)
    began = time.perf_counter()
    with failing_server() as server:
        for share in kills:
            _audit(folder, table, server, stop=partial(_has_answered, server, int(share * prompts)))
        watched = _audit(folder, table, server)
    seconds = time.perf_counter() - began
    found = records(folder / "out")
    texts = Counter(text for text, _ in found)
    wanted = {text_of(number) for number in range(prompts)}
    right = {text for text, answer in found if answer.rstrip() == answer_to(text).rstrip()}
    again = sum(server.answered[text] - 1 for text in wanted & server.answered.keys())
    return Asked(
        prompts,
        len(kills),
        server.calls,
        server.failed,
        len(wanted - right),
        sum(texts.values()) - len(texts),
        again,
        seconds,
        _by_share(watched, prompts),
        max(size for _, size in watched),
    )


def _audit(
    folder: Path, table: Path, server: FailingServer, stop: Callable[[], bool] = lambda: False
) -> list[tuple[int, float]]:
    """Runs the command until it ends, or until it is killed; (prompts answered, resident MiB) now and then."""
    words = ["audit", f"model@{server.url}", "--safety", str(table), "--answers-only", "--output", str(folder / "out")]
    environment = {**os.environ, "POLYSAFE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    seen = []
    with open(folder / "said.txt", "wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "polysafe", *words, "--quiet"], env=environment, stdout=said, stderr=said
        )
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                seen.append((len(server.answered), watched.memory_info().rss / 2**20))
            except psutil.NoSuchProcess:
                break
            if stop():
                process.kill()
            time.sleep(_EVERY)
    if process.wait() not in (0, -9):
        raise SystemExit((folder / "said.txt").read_text(encoding="utf-8"))
    return seen


def _has_answered(server: FailingServer, prompts: int) -> bool:
    return len(server.answered) >= prompts


def _by_share(seen: Sequence[tuple[int, float]], prompts: int) -> dict[str, float]:
    """Memory when every tenth of the prompts had been answered."""
    marks = {f"{tenth}0 %": tenth * prompts // 10 for tenth in range(1, 11)}
    return {
        name: round(next(size for done, size in seen if done >= mark), 1)
        for name, mark in marks.items()
        if seen[0][0] < mark <= seen[-1][0]
    }


def text_of(number: int) -> str:
    """One prompt of many."""
    return f"How do I bake bread number {number}?"


def write_rows(path: Path, rows: int) -> Path:
    """A table of so many prompts."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "category"])
        writer.writerows([text_of(number), f"category {number % 14}"] for number in range(rows))
    return path


def records(run: Path) -> list[tuple[str, str]]:
    """Prompt and answer of every record of a run."""
    with open(run / "records.jsonl", encoding="utf-8") as lines:
        return [(row["text"], row["answer"]) for row in map(json.loads, lines)]


def read_rows(path: Path) -> int:
    """Reads a table as an audit does; returns how many different prompts it holds, in order and whole."""
    from polysafe.data.sets.registry import load_set

    found = load_set(path).prompts
    right = sum(prompt.text == text_of(number) for number, prompt in enumerate(found))
    return right if len({prompt.id for prompt in found}) == len(found) == right else 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Does all three and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--languages", type=int, default=100)
    parser.add_argument("--each", type=int, default=300, help="prompts of a set in a language")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.read is not None:
        _measure_reading(options.read)
        return
    with tempfile.TemporaryDirectory() as temporary:
        results = dict(_all(Path(temporary), options))
    save(options.output, results)


def _all(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    for name in options.parts:
        (folder / name).mkdir()
        result = PARTS[name](folder / name, options)
        print(name, json.dumps(result, indent=1), flush=True)
        yield name, result


def _rows(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    table = write_rows(folder / "mine_en.csv", options.rows)
    taken = in_process("benchmarks.speed.load", "--read", str(table))
    right = int((folder / "right.txt").read_text())
    return {"rows": options.rows, "right": right, "bytes": table.stat().st_size, **asdict(taken)}


def _measure_reading(table: Path) -> None:
    import polysafe.data.sets.registry  # noqa: F401  imports are no part of the measurement

    right = 0

    def read() -> None:
        nonlocal right
        right = read_rows(table)

    taken = measured(read)
    (table.parent / "right.txt").write_text(str(right))
    print(json.dumps(asdict(taken)))


def _languages(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return report.measure(folder, options.languages, 3, options.each)


def _prompts(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return asdict(ask(folder, options.prompts))


PARTS = {"rows": _rows, "languages": _languages, "prompts": _prompts}

if __name__ == "__main__":
    main()
