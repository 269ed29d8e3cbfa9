"""Interruptions from the keyboard, remembered: a library that is interrupted while it is imported may say otherwise."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

_seen = False

INTERRUPTED = 130
"""Exit code of a command that was interrupted."""


def remember_interruptions() -> None:
    """From now on `interrupted` knows. Where interruptions are ignored, as in the background, they stay ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def interrupted() -> bool:
    """Whether this process was interrupted."""
    return _seen


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    global _seen  # noqa: PLW0603
    _seen = True
    raise KeyboardInterrupt
