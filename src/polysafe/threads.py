"""How many threads do the work: torch's own, where matrices come in small blocks, and ours, where much is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

MOST = 16
"""Most threads that read and compute: beyond them disks are the limit, and memory grows with them."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within it torch uses `number` threads.

    One is best for blocks of a stream and for toy models: the pieces are too small to share, sums are rounded
    differently with two, and on a busy machine threads that wait for each other cost ten times what they save.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share(processes: int) -> int:
    """Threads for each of so many processes that compute at once on this machine: together no more than torch's own.

    Two processes on two cores that both use two threads wait for each other most of the time.
    """
    import torch

    return max(1, torch.get_num_threads() // processes)


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
    """What comes of every item, in order, done by a thread for each core; once it is closed nothing more is begun.

    Args:
        work: What is done. Reading, hashing and torch leave the other threads alone.
        items: What with.
    """
    context = copy_context()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(max_workers=min(cores or 1, MOST), thread_name_prefix="core")
    try:
        yield from pool.map(lambda item: context.copy().run(work, item), items)
    finally:
        pool.shutdown(cancel_futures=True)
