"""What was read off files before: kept in the user's cache, and believed while their sizes and times stay the same.

A file that is written twice within one tick of the clock has the same times twice, so that nothing is kept of a file
that was changed a moment ago (the "racy" entries of Git's index are the same problem).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from polysafe._version import __version__
from polysafe.files.atomic import json_bytes, write_json_atomic
from polysafe.files.json_file import remembered

TICK = 2.0
"""Seconds within which a clock of a file system may stand still."""

_believed: ContextVar[bool] = ContextVar("believed", default=True)


@dataclass(frozen=True)
class Stamp:
    """What tells a file from what it was before, without reading it.

    Attributes:
        file: The file.
        size: Its size in bytes.
        mtime_ns: When its content was last changed, by what programs say.
        ctime_ns: When anything of it was last changed. No program can set it back.
    """

    file: Path
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, file: Path, status: os.stat_result) -> Self:
        """That of a file by what the system says of it."""
        return cls(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def key(self) -> list[object]:
        """The same as plain data."""
        return [str(self.file), self.size, self.mtime_ns, self.ctime_ns]


@contextmanager
def reading_again(again: bool = True) -> Iterator[None]:
    """Within it nothing is believed that was read before, if `again`; what is read is kept."""
    token = _believed.set(not again)
    try:
        yield
    finally:
        _believed.reset(token)


def recall(kind: str, stamps: Iterable[Stamp], *settings: object) -> Mapping[str, Any] | None:
    """What was kept of files, None where nothing was or it is not to be believed.

    Args:
        kind: What it is.
        stamps: The files, as they are now.
        settings: What else it depends on, in values that JSON can hold.
    """
    if not _believed.get():
        return None
    key = _key(stamps, settings)
    record = remembered(_place(kind, key))
    value = record.get("value")
    return value if record.get("key") == key and isinstance(value, Mapping) else None


def keep(kind: str, stamps: Sequence[Stamp], value: Mapping[str, Any], *settings: object, began: float) -> None:
    """Keeps what was read of files. A cache that cannot be written costs time, never the result.

    Args:
        kind: What it is.
        stamps: The files, as they were before they were read.
        value: What was read, in values that JSON can hold.
        settings: What else it depends on.
        began: When reading began (`time.time`).
    """
    if any(stamp.ctime_ns / 1e9 > began - TICK for stamp in stamps):
        return
    key = _key(stamps, settings)
    place = _place(kind, key)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(place, {"key": key, "value": dict(value)})
    except (OSError, ValueError):  # ValueError: a number that JSON has not
        return


def _key(stamps: Iterable[Stamp], settings: Sequence[object]) -> list[object]:
    return [__version__, [stamp.key for stamp in stamps], list(settings)]


def _place(kind: str, key: object) -> Path:
    return cache_directory() / kind / f"{hashlib.sha256(json_bytes(key)).hexdigest()}.json"


def cache_directory() -> Path:
    """Where polysafe keeps what it can compute again: `$POLYSAFE_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("POLYSAFE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polysafe"
