"""Work that is shared among processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from polysafe.errors import ResourceError

MOST = 8
"""Most processes that are used unless more are asked for: each holds torch, about half a gigabyte."""

P = ParamSpec("P")
T = TypeVar("T")


def usable_cores() -> int:
    """Cores that this process may run on, up to `MOST`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, MOST)


class Task(Generic[T]):
    """Work that was handed out; `Workers.result` waits for what comes of it."""

    def __init__(self, future: Future[bytes]) -> None:
        self.future = future


class Crew(Protocol):
    """Something that carries functions out elsewhere, within a `with` block that ends it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Any:
        """Hands work out."""

    def result(self, task: Any) -> Any:
        """What came of some work."""


class Workers:
    """Functions are carried out in processes of their own, or, where there is one worker, in this process at once.

    Whatever ends the `with` block ends the processes: an error, an interruption, or the end of this process itself.
    Functions, their arguments and results must be of the kind that can be pickled.

    Args:
        count: Number of processes; 1 starts none.
        tell: Called with the number of pieces of work that are done.
        threads: Threads that torch uses in each process.
    """

    def __init__(self, count: int, tell: Callable[[int], None] = lambda _: None, threads: int = 1) -> None:
        self._count, self._tell, self._done, self._threads = count, tell, 0, threads
        self._open: set[Future[bytes]] = set()

    def __enter__(self) -> Self:
        self._others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        self._pool: ProcessPoolExecutor | None = None
        if self._count > 1:
            self._pool = ProcessPoolExecutor(self._count, context, _begin, (self._threads,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if kind is not None:
            for child in set(multiprocessing.active_children()) - self._others:
                child.terminate()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Hands work out. What is handed out first is begun first.

        Raises:
            ResourceError: A process ended unexpectedly.
        """
        future: Future[bytes] = Future()
        if self._pool is None:
            future.set_result(_carry_out(partial(function, *args, **kwargs)))
        else:
            with _uninterrupted(), _whole():
                future = self._pool.submit(_carry_out, partial(function, *args, **kwargs))
        self._open.add(future)
        return Task(future)

    def result(self, task: Task[T]) -> T:
        """What came of some work. A failure of any other that was handed out is raised as soon as it is known.

        Raises:
            ResourceError: A process ended unexpectedly.
        """
        while task.future in self._open:
            done, self._open = wait(self._open, return_when=FIRST_COMPLETED)
            with _whole():
                for future in done:
                    future.result()
            self._done += len(done)
            self._tell(self._done)
        found: T = pickle.loads(task.future.result())  # noqa: S301 (from a process that was started here)
        return found


def _carry_out(work: Callable[[], object]) -> bytes:
    """The result, packed: between processes torch would pass tensors as open files, of which there are not many."""
    return pickle.dumps(work())


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that shared the work ended before it was done; perhaps there was too little memory",
            remedy="use fewer processes, `--workers 1`; what is finished is kept",
        ) from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A process that is started here is not interrupted from the keyboard: whoever started it ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(threads: int) -> None:
    """The first thing in a process. Torch is there if the program that was started imports it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed tells nobody."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
