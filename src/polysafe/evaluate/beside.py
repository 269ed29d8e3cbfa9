"""Work that goes on beside other work: answers are judged while others are still asked for.

Where model and judge are served by different machines, or only one of them by this one, each would wait for the other.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from threading import Event, Thread
from types import TracebackType
from typing import Generic, Self, TypeVar

from polysafe.progress import counted

Item = TypeVar("Item")

_LOOK = 0.2
"""Seconds between two looks at a thread; an interrupt is heard then."""


class Beside(Generic[Item]):
    """A thread that works on what it is given, in batches of what has come meanwhile.

    What it raises is raised to who gives it more, or waits for it. Leaving by an error ends it after the piece that it
    is at.

    Args:
        work: Works on a batch; an element of what it returns is a piece that is done.
        most: Most items of a batch.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Iterable[object]], most: int) -> None:
        self._work, self._most = work, most
        self._given: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._stopped, self._done = Event(), 0
        self._error: BaseException | None = None
        self._thread = Thread(target=copy_context().run, args=(self._run,), name="beside", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stopped.set()
        self._given.put(None)
        while self._thread.is_alive():
            self._thread.join(_LOOK)

    def give(self, item: Item) -> None:
        """Gives it an item to work on."""
        if self._error is not None:
            raise self._error
        self._given.put(item)

    def finish(self, stage: str, total: int) -> None:
        """Waits until all is done, and tells how far it is.

        Args:
            stage: What it is called.
            total: How many items it was given.
        """
        self._given.put(None)
        told = self._done
        advance = counted(stage, total, told)
        while self._thread.is_alive():
            self._thread.join(_LOOK)
            if (done := self._done) > told:
                advance(done - told)
                told = done
        if self._error is not None:
            raise self._error
        advance.finish()

    def _run(self) -> None:
        try:
            while batch := self._batch():
                for _ in self._work(batch):
                    self._done += 1
                    if self._stopped.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 — raised to whoever waits
            self._error = error

    def _batch(self) -> list[Item]:
        """What has come; empty once nothing more does."""
        found: list[Item] = []
        while len(found) < self._most:
            try:
                item = self._given.get(block=not found)
            except queue.Empty:
                break
            if item is None:
                self._given.put(None)  # for the next batch to see
                break
            found.append(item)
        return found
