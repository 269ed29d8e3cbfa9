"""Processes that tests start and interrupt."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any


@contextmanager
def interrupts(*, ignored: bool = False) -> Iterator[None]:
    """Within it, SIGINT and SIGHUP end this process and those that it starts, or have no effect on them.

    A suite that a script starts in the background inherits an ignored SIGINT, one under `nohup` an ignored SIGHUP, and
    so would every process of a test.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL),
    }
    try:
        yield
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)


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


MAIN = "from polysafe.cli import main; main()"
_LIGHT = """
{body}
import sys, types
from polysafe.cli.console import progress, resumable
def run(recipes, **options):
    with resumable(), progress():
        {function}(recipes)
sys.modules["polysafe.cli.commands.run"] = types.SimpleNamespace(run=run)
{main}
"""


def light(body: str, function: str = "wait") -> str:
    """The program of `polysafe run` with a function of `body` in the place of what carries out recipes.

    Signals, progress and endings are those of the command line; torch, whose import takes ten times as long as
    everything else, is not needed.
    """
    return _LIGHT.format(body=body, function=function, main=MAIN)
