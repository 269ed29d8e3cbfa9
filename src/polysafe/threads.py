"""How many threads torch uses where matrices are small or come in small blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Within it torch uses `number` threads.

    One is best for blocks of a stream and for toy models: the pieces are too small to share, sums are rounded
    differently with two, and on a busy machine threads that wait for each other cost ten times what they save.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
