"""How long work tells whoever waits for it.

Work says what it does and how far it is (`counted`); a verb says who listens (`reporting`). What lies between, above
all a method's `fit`, passes nothing on. Where nobody listens, telling costs next to nothing.

Who listens is known per thread: work in a thread of a pool tells through a `Meter` that was made in the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done of it, and its total."""


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


_listener: ContextVar[Progress] = ContextVar("listener", default=_silent)


def tell(stage: str, done: int, total: int) -> None:
    """Tells whoever listens in this thread now; the default of everything that takes a `Progress`."""
    _listener.get()(stage, done, total)


@contextmanager
def reporting(progress: Progress) -> Iterator[None]:
    """Within it, work tells `progress`; `tell` leaves whoever listens already."""
    if progress is tell:
        yield
        return
    before = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(before)


_hearer: ContextVar[Callable[[str], None]] = ContextVar("hearer", default=lambda _: None)


def say(text: str) -> None:
    """Tells whoever hears something that is to be read and not only seen passing by."""
    _hearer.get()(text)


@contextmanager
def hearing(hearer: Callable[[str], None]) -> Iterator[None]:
    """Within it, what is said goes to `hearer`."""
    before = _hearer.set(hearer)
    try:
        yield
    finally:
        _hearer.reset(before)


@contextmanager
def during(label: str) -> Iterator[None]:
    """Within it, the names of stages say what they are part of: `trial 3 of 12: layer 11, answers`."""
    listener = _listener.get()
    with reporting(lambda stage, done, total: listener(f"{label}, {stage}", done, total)):
        yield


class Meter:
    """Adds up amounts that are done and reports the sum; any thread may add.

    Args:
        progress: Who is told.
        stage: Name of the stage.
        total: What there is to do; amounts beyond it are not shown.
        done: What was done before, in an earlier run.
    """

    def __init__(self, progress: Progress, stage: str, total: int, done: int = 0) -> None:
        self._progress, self._stage, self._total, self._done = progress, stage, total, done
        self._lock = Lock()
        progress(stage, done, total)

    def __call__(self, amount: int = 1) -> None:
        """Adds an amount."""
        with self._lock:
            self._done = min(self._done + amount, self._total)
            self._progress(self._stage, self._done, self._total)

    def finish(self) -> None:
        """Shows the stage as done, however much there was."""
        self(self._total)


class Parts:
    """A stage of equal parts. A part's own stages are not shown: they say when the part ends, and not when all do.

    Args:
        stage: Name of the whole.
        inner: Name of the stage by which a part tells how far it is; the others are passed over.
        amount: What there is to do in a part.
        parts: Number of parts.
    """

    def __init__(self, stage: str, inner: str, amount: int, parts: int) -> None:
        self._stage, self._inner, self._amount, self._parts, self._done = stage, inner, amount, parts, 0

    def expect(self, parts: int) -> None:
        """Says how many parts are still to come."""
        self._parts = self._done + parts

    @contextmanager
    def part(self, *, known: bool = False) -> Iterator[None]:
        """Within it, one part is done; of one that is known from before, nothing is told, and it takes no time."""
        listener = _listener.get()
        before, total = self._done * self._amount, self._parts * self._amount

        def share(stage: str, done: int, of: int) -> None:
            if stage == self._inner and not known:
                listener(self._stage, before + self._amount * done // max(1, of), total)

        share(self._inner, 0, 1)
        with reporting(share):
            yield
        self._done += 1
        share(self._inner, 1, 1)


def counted(stage: str, total: int, done: int = 0) -> Meter:
    """A meter for whoever listens now.

    Args:
        stage: Name of the stage.
        total: What there is to do.
        done: What was done before, in an earlier run.
    """
    return Meter(_listener.get(), stage, total, done)
