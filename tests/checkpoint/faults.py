"""Faults on demand: the n-th call that makes something durable fails, or is the last thing that the process does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

DURABLE = ("fsync", "replace", "rename")


class KilledError(BaseException):
    """Stands for the end of the process: nothing that runs afterwards may matter."""


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Counter:
    """Counts calls and raises at the one that it was told to."""

    def __init__(self, fail_at: int | None, error: Callable[[], BaseException]) -> None:
        self.calls, self._fail_at, self._error = 0, fail_at, error

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self._fail_at:
                raise self._error()
            return call(*arguments, **named)

        return counted


@contextmanager
def failing(
    fail_at: int | None, error: Callable[[], BaseException], calls: tuple[str, ...] = DURABLE
) -> Iterator[Counter]:
    """Lets the n-th of these calls of `os` fail; counts them only if `fail_at` is None."""
    counter = Counter(fail_at, error)
    with pytest.MonkeyPatch.context() as patch:
        for name in calls:
            patch.setattr(os, name, counter.before(getattr(os, name)))
        yield counter
