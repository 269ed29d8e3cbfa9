"""Processes that tests start and interrupt."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def interrupts(*, ignored: bool = False) -> Iterator[None]:
    """Within it, SIGINT interrupts this process and those that it starts, or has no effect on them.

    A suite that a script starts in the background inherits an ignored SIGINT, and so would every process of a test.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def started(
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    stdout: int | IO[Any] = subprocess.PIPE,
    stderr: int | IO[Any] = subprocess.PIPE,
    ignores_interrupts: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes that does not outlive the block, whatever happens in it."""
    with interrupts(ignored=ignores_interrupts):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, text=True, env=env)
    with process:
        try:
            yield process
        finally:
            process.kill()
