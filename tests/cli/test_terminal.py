"""A command that is ended while it draws on a terminal leaves the terminal as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.processes import light, started

DRAWING = """
import time
from polysafe.progress import tell
def draw(recipes):
    for number in range(10**6):
        tell("writing", number, 10**6)
        time.sleep(0.05)
"""
HIDDEN, SHOWN = b"\x1b[?25l", b"\x1b[?25h"
PATIENCE = 240


def read(terminal: int, until: bytes | None) -> bytes:
    """What is drawn until some bytes come, or until nobody draws any more."""
    seen, stop = b"", time.monotonic() + PATIENCE
    while time.monotonic() < stop and (until is None or until not in seen):
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 2**16)
        except OSError:  # the other end is closed
            break
        seen += piece
        if not piece:
            break
    return seen


@pytest.mark.fault(16, "the terminal is put back")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_cursor_is_shown_again(sent: signal.Signals, code: int, recipe: Path) -> None:
    terminal, theirs = os.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "TERM": "xterm"}
    command = [sys.executable, "-c", light(DRAWING, "draw"), "run", str(recipe)]
    try:
        with started(command, env=environment, stderr=theirs) as process:
            os.close(theirs)
            drawn = read(terminal, HIDDEN)
            assert HIDDEN in drawn
            process.send_signal(sent)
            drawn += read(terminal, None)
            assert process.wait(PATIENCE) == code
    finally:
        os.close(terminal)
    assert drawn.rindex(SHOWN) > drawn.rindex(HIDDEN)
    assert b"run the same command again" in drawn
