"""Runs a piece of work, or a whole command, in a process of its own and reports wall time, CPU, bytes and memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """What one run of one side took.

    Attributes:
        wall: Seconds of wall time, start-up of the process and imports left out.
        cpu: User and system seconds of the same part.
        peak_rss: Largest resident memory of the process in MiB, imports included.
        private_growth: Largest private memory beyond that after the imports, in MiB.
        bytes_read: Bytes requested from files.
        bytes_written: Bytes written to files.
    """

    wall: float
    cpu: float
    peak_rss: float
    private_growth: float
    bytes_read: int
    bytes_written: int


def measured(work: Callable[[], object]) -> Measurement:
    """Measures `work` in this process, which has done its imports before."""
    private = _Sampler()
    usage, io, began = _cpu(), _io(), time.perf_counter()
    with private:
        work()
    wall, io_after = time.perf_counter() - began, _io()
    return Measurement(
        wall=wall,
        cpu=_cpu() - usage,
        peak_rss=_peak_resident() / (1 << 20),
        private_growth=private.growth / (1 << 20),
        bytes_read=io_after["rchar"] - io["rchar"],
        bytes_written=io_after["wchar"] - io["wchar"],
    )


def in_process(module: str, *arguments: str) -> Measurement:
    """Runs `python -m module arguments`, which prints a measurement as its last line."""
    return Measurement(**run_side(module, *arguments))


def of_command(command: Sequence[str], environment: Mapping[str, str]) -> Measurement:
    """Runs a command, watched from outside: start and imports count, and so do processes that it waits for.

    Private memory is the largest that it had, of its own process alone.

    Args:
        command: The command; what it writes on its streams is shown only where it fails.
        environment: What its environment has beside that of this process.
    """
    io, private, began = _io(), 0, time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **environment})
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            private = max(private, private_of(process.pid))
            time.sleep(0.005)
        wall, io_after, (_, status, usage) = time.perf_counter() - began, _io(), ended
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{said.read()[-3000:]}")
    return Measurement(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        peak_rss=usage.ru_maxrss / 1024,
        private_growth=private / (1 << 20),
        bytes_read=io_after["rchar"] - io["rchar"],
        bytes_written=io_after["wchar"] - io["wchar"],
    )


def run_side(module: str, *arguments: str) -> dict[str, Any]:
    """Runs `python -m module arguments`, which prints an object of JSON as its last line."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _io() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {key: int(value) for key, value in (line.split(": ") for line in lines)}


def _peak_resident() -> int:
    """Largest resident memory of this process in bytes; unlike `ru_maxrss` it starts anew with the program."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


class _Sampler:
    """The largest private memory seen, sampled every few milliseconds, beyond that at the start."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._start = self._peak = private_of()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self._peak - self._start

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, private_of())


def private_of(process: int | str = "self") -> int:
    """Anonymous pages in memory, in bytes: what a process adds by itself. Asking is cheap: the kernel keeps count.

    0 of another process that ends.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    if process != "self":
        return 0
    raise SystemExit("this kernel does not say how much memory is anonymous")
