"""How progress is shown: a bar on a terminal, plain lines elsewhere.

Both show the innermost stage that is under way: how much of it is done, how fast, and the time left. What was there
from an earlier run, the first step of a stage, does not count into the rate. A clock can be given, so that tests need
not wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Protocol

from polysafe.text.readable import MAX_LABEL, one_line, shorten
from polysafe.text.units import format_number, format_rate, format_seconds

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 10.0
"""Least seconds between two lines."""
_REDRAW = 0.25
"""Least seconds between two drawings of a bar."""
_TICK = 1.0

Clock = Callable[[], float]


def _count(number: int) -> str:
    """Prompts in full, bytes in short."""
    return str(number) if number < 1_000_000 else format_number(number)


def _about(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class Stage:
    """Something that is being done.

    Attributes:
        label: What.
        total: How much there is.
        first: What was done when it was first told of.
        began: When that was.
        done: How much is done.
    """

    label: str
    total: int
    first: int
    began: float
    done: int

    @property
    def over(self) -> bool:
        """Whether all is done."""
        return self.done >= self.total

    def state(self, now: float) -> str:
        """`240/3150 (8 %), 1.2/s, about 41 min left`; how long it has taken where there is no rate yet."""
        elapsed, news = now - self.began, self.done - self.first
        parts = [f"{_count(self.done)}/{_count(self.total)} ({self.done / self.total:.0%})".replace("%", " %")] * (
            self.total > 1
        )
        if self.over:
            parts.append(f"took {format_seconds(elapsed)}")
        elif news > 0 and elapsed > 0:
            parts += [format_rate(news / elapsed), f"about {_about(elapsed * (self.total - self.done) / news)} left"]
        else:
            parts.append(f"for {format_seconds(elapsed)}")
        return ", ".join(parts)


class Stages:
    """The stages that are under way, each part of the one before it.

    Args:
        clock: What time it is, in seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock, self._open = clock, list[Stage]()

    @property
    def current(self) -> Stage | None:
        """The innermost one, None between stages."""
        return self._open[-1] if self._open else None

    def step(self, label: str, done: int, total: int) -> Stage:
        """Takes what is told. Whatever began after a stage that is told of again is over, or was given up."""
        found = next((stage for stage in self._open if stage.label == label), None)
        if found is not None:
            del self._open[self._open.index(found) :]
        if found is None or found.done > done:
            found = Stage(label, total, done, self._clock(), done)
        found.done, found.total = done, total
        if not found.over:
            self._open.append(found)
        return found


def _label(stage: Stage) -> str:
    return one_line(shorten(stage.label, MAX_LABEL))


class Display(Protocol):
    """Shows progress."""

    def step(self, label: str, done: int, total: int) -> None:
        """Takes what is told."""

    def tick(self) -> None:
        """Shows that time has passed, though nothing was told."""


class Lines:
    """Plain lines: one every ten seconds at most, and one at the end of each stage that took longer.

    Args:
        write: Writes a line.
        clock: What time it is, in seconds.
    """

    def __init__(self, write: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._stages, self._last = Stages(clock), clock()

    def step(self, label: str, done: int, total: int) -> None:
        """Takes what is told."""
        stage = self._stages.step(label, done, total)
        if stage.over and self._clock() - stage.began >= EVERY:
            self._show(stage)
        elif not stage.over:
            self.tick()

    def tick(self) -> None:
        """Writes a line if it is time for one."""
        stage = self._stages.current
        if stage is not None and self._clock() - self._last >= EVERY:
            self._show(stage)

    def _show(self, stage: Stage) -> None:
        self._last = self._clock()
        self._write(f"{_label(stage)} {stage.state(self._last)}")


class Bar:
    """A bar of `rich`, drawn when something has changed and at most four times a second.

    Args:
        console: Where to.
        clock: What time it is, in seconds.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[state]}", markup=False),
        )
        # rich would draw ten times a second, whether or not anything has changed.
        self.drawing = Progress(*columns, console=console, transient=True, auto_refresh=False)
        self._task = self.drawing.add_task("", total=None, state="")
        self._clock, self._last, self._stages = clock, -_REDRAW, Stages(clock)

    def step(self, label: str, done: int, total: int) -> None:
        """Takes what is told."""
        self._draw(self._stages.step(label, done, total))

    def tick(self) -> None:
        """Draws the time that has passed."""
        if (stage := self._stages.current) is not None:
            self._draw(stage)

    def _draw(self, stage: Stage) -> None:
        now = self._clock()
        if now - self._last < _REDRAW:
            return
        self._last = now
        self.drawing.update(
            self._task,
            description=_label(stage),
            completed=stage.done,
            total=stage.total,
            state=stage.state(now),
            refresh=True,
        )


@contextmanager
def showing(display: Display) -> Iterator[Callable[[str, int, int], None]]:
    """What takes progress, from any thread; while it is open, the display is told every second that time passes."""
    lock, stop = Lock(), Event()

    def step(label: str, done: int, total: int) -> None:
        with lock:
            display.step(label, done, total)

    def tick() -> None:
        while not stop.wait(_TICK):
            with lock:
                try:
                    display.tick()
                except (OSError, ValueError):  # nobody reads any more; the next step says so in the main thread
                    return

    thread = Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield step
    finally:
        stop.set()
        thread.join(_TICK)
