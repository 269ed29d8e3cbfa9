"""Coverage-guided fuzzing of the parsers: `python -m tests.fuzz --seconds 60 [TARGET …]`, with atheris.

Each target runs in a process of its own. What it finds is kept once for each place in the code, in `build/fuzz/found`,
and the run goes on; the inputs that reach new code stay in `build/fuzz/corpus`, for the next run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUILD = Path("build/fuzz")
_DONE = re.compile(rb"^Done (\d+) (?:runs )?in", re.MULTILINE)
_LONGEST = 20_000


def main() -> int:
    """Fuzzes every target that is named, all by default; returns 1 where something was found."""
    options = _options()
    if options.one:
        return _fuzz(options.targets[0], options.seconds)
    from tests.fuzz.targets import TARGETS

    found = 0
    for target in TARGETS:
        if not options.targets or target.name in options.targets:
            found += _run(target.name, options.seconds, options.record)
    return int(found > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="targets; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="seconds for each target")
    parser.add_argument("--record", type=Path, help="JSON file that executions and processor time are added to")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(name: str, seconds: int, record: Path | None) -> int:
    """Fuzzes a target in a process of its own, and says what came of it."""
    before = os.times()
    command = [sys.executable, "-m", "tests.fuzz", "--one", "--seconds", str(seconds), name]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    counted = _DONE.search(done.stderr)
    executions = int(counted[1]) if counted else 0
    found = len(list((BUILD / "found" / name).glob("*.txt")))
    if counted is None:
        sys.stderr.buffer.write(done.stderr[-4000:])
        found += 1
    print(f"{name}: {executions} executions, {cpu:.0f} s of processor time, {found} found", flush=True)  # noqa: T201
    if record is not None:
        _add(record, name, executions, cpu)
    return found


def _add(record: Path, name: str, executions: int, cpu: float) -> None:
    known: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    entry = known.setdefault(name, {"executions": 0, "cpu_seconds": 0})
    entry["executions"] += executions
    entry["cpu_seconds"] = round(entry["cpu_seconds"] + cpu)
    record.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _fuzz(name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["polysafe"]):
        from tests.fuzz.mutate import mutate
        from tests.fuzz.target import bounded
        from tests.fuzz.targets import TARGETS

        target = next(each for each in TARGETS if each.name == name)
        seeds = target.seeds
    corpus, found = BUILD / "corpus" / name, BUILD / "found" / name
    for place in (corpus, found):
        place.mkdir(parents=True, exist_ok=True)
    for data in (*seeds, *target.corpus):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words = BUILD / f"{name}.dict"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in (*target.words, b"\0")))

    def one(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:  # noqa: BLE001  (it is what is looked for)
            _keep(found, data, error)

    def changed(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, len(data)))
        return mutate(data, seeds, target.form, target.words, random.Random(seed))[:most]

    limits = [f"-max_total_time={seconds}", "-timeout=100", "-rss_limit_mb=0", f"-max_len={_LONGEST}"]
    settings = [sys.argv[0], *limits, f"-dict={words}", "-print_final_stats=1", str(corpus)]
    atheris.Setup(settings, one, custom_mutator=changed)
    with bounded():
        atheris.Fuzz()
    return 0


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _keep(folder: Path, data: bytes, error: Exception) -> None:
    """Keeps the shortest input for each place that an error comes from."""
    place = _place(traceback.extract_tb(error.__traceback__))
    name = hashlib.sha256(f"{type(error).__name__} {place}".encode()).hexdigest()[:12]
    file = folder / name
    if not file.exists() or file.stat().st_size > len(data):
        file.write_bytes(data)
        file.with_suffix(".txt").write_text("".join(traceback.format_exception(error))[-8000:])


def _place(frames: Sequence[traceback.FrameSummary]) -> str:
    """The last line of polysafe that an error came through."""
    own = [frame for frame in frames if f"{os.sep}polysafe{os.sep}" in frame.filename]
    last = (own or list(frames))[-1]
    return f"{last.filename}:{last.lineno}"


if __name__ == "__main__":
    sys.exit(main())
