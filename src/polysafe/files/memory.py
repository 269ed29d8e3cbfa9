"""What was read off files before: kept in the user's cache, and believed while their sizes and times stay the same.

A file that is written twice within one tick of the clock has the same times twice, so that nothing is kept of a file
that was changed a moment ago (the "racy" entries of Git's index are the same problem).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from polysafe._version import __version__
from polysafe.files.atomic import json_bytes, write_json_atomic
from polysafe.files.json_file import remembered

TICK = 2.0
"""Seconds within which a clock of a file system may stand still."""

Notes = dict[str, Mapping[str, Any]]
"""What was read in one piece of work: place in the cache -> record."""

_believed: ContextVar[bool] = ContextVar("believed", default=True)
_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


@dataclass(frozen=True)
class Stamp:
    """What tells a file from what it was before, without reading it.

    Attributes:
        file: The file.
        size: Its size in bytes.
        mtime_ns: When its content was last changed, by what programs say.
        ctime_ns: When anything of it was last changed. No program can set it back.
        inode: Its number on its disk: another file under the same name has another one. Some network disks number
            anew, so that what is remembered hangs on it, and nothing else.
    """

    file: Path
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int = field(default=0, compare=False)

    @classmethod
    def of(cls, file: Path, status: os.stat_result) -> Self:
        """That of a file by what the system says of it."""
        return cls(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

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


@contextmanager
def noting(notes: Notes) -> Iterator[None]:
    """Within it, what is read is noted and believed for as long as the notes live, whatever the cache is worth.

    Of one piece of work: its parts share what they read also where there is no cache, where all is read again
    (`reading_again`), and where files were made a moment ago.
    """
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)


def recall(kind: str, stamps: Iterable[Stamp], *settings: object) -> Mapping[str, Any] | None:
    """What was kept of files, None where nothing was or it is not to be believed.

    Args:
        kind: What it is.
        stamps: The files, as they are now.
        settings: What else it depends on, in values that JSON can hold.
    """
    key = _key(stamps, settings)
    place = _place(kind, key)
    noted = (_notes.get() or {}).get(str(place))
    if noted is None and not _believed.get():
        return None
    record = remembered(place) if noted is None else noted
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
    key = _key(stamps, settings)
    place, notes = _place(kind, key), _notes.get()
    try:
        record = json.loads(json_bytes({"key": key, "value": dict(value)}))
        if notes is not None:
            notes[str(place)] = record
        if any(stamp.ctime_ns / 1e9 > began - TICK for stamp in stamps):
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(place, record)
    except (OSError, ValueError):  # ValueError: a number that JSON has not
        return


def _key(stamps: Iterable[Stamp], settings: Sequence[object]) -> list[object]:
    return [__version__, [[*stamp.key, stamp.inode] for stamp in stamps], list(settings)]


def _place(kind: str, key: object) -> Path:
    return cache_directory() / kind / f"{hashlib.sha256(json_bytes(key)).hexdigest()}.json"


def cache_directory() -> Path:
    """Where polysafe keeps what it can compute again: `$POLYSAFE_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("POLYSAFE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polysafe"
