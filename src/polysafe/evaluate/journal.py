"""What an unfinished run already knows: one line per result, appended as soon as it is there.

A process can be killed in the middle of a line. Such a line is cut off when the file is opened again, and what it would
have said is asked for again; nothing else is lost.
"""

from __future__ import annotations

import hashlib
import os
from io import FileIO
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, Self, cast

from polysafe.checkpoint.writer import output_error
from polysafe.errors import OutputError
from polysafe.evaluate.keys import Key, Kind
from polysafe.evaluate.records import json_line
from polysafe.files.json_file import parse_line

_BITS = 40
_LONGEST = (1 << _BITS) - 1
"""A place is one number, where a line starts and how long it is: it takes a third of the memory of two."""


class Store(Protocol):
    """Something that remembers results by their keys."""

    def get(self, key: Key) -> Any | None:
        """The value, None where there is none."""

    def put(self, key: Key, value: Any) -> None:
        """Remembers a value."""


class Journal:
    """Results of one run in a file, line by line; in memory is only where each of them stands. For several threads.

    Args:
        path: The file; its folder exists.

    Raises:
        OutputError: The file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._writing = path, Lock()
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 — open for as long as the journal is
            self._places = _read(self._file)
        except OSError as error:
            raise output_error(path, error) from error

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: Key) -> Any | None:
        """The value, None where there is none.

        Raises:
            OutputError: The file cannot be read any more, or was changed.
        """
        place = self._places.get(_short(key))
        if place is None:
            return None
        try:
            entry = _entry(os.pread(self._file.fileno(), place & _LONGEST, place >> _BITS))
        except OSError as error:
            raise output_error(self.path, error) from error
        if entry is None or entry[0] != key:
            raise OutputError("was changed by another program", where=self.path, remedy="run again; it resumes")
        return entry[1]

    def put(self, key: Key, value: Any) -> None:
        """Remembers a value.

        Raises:
            OutputError: The disk is full.
        """
        name = _short(key)
        if name in self._places:
            return
        line = json_line([key.kind, key.owner, key.item, value])
        with self._writing:
            try:
                place = self._file.seek(0, os.SEEK_END) << _BITS | len(line)
                while line:
                    line = line[self._file.write(line) or 0 :]
            except OSError as error:
                raise output_error(self.path, error) from error
            self._places[name] = place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Layers:
    """Several stores, asked in order; what one of them knows, the others learn.

    Args:
        stores: The stores, the nearest first.
    """

    def __init__(self, *stores: Store) -> None:
        self._stores = stores

    def get(self, key: Key) -> Any | None:
        """The value of the first store that has one."""
        for place, store in enumerate(self._stores):
            value = store.get(key)
            if value is not None:
                for nearer in self._stores[:place]:
                    nearer.put(key, value)
                return value
        return None

    def put(self, key: Key, value: Any) -> None:
        """Tells all stores."""
        for store in self._stores:
            store.put(key, value)


def _short(key: Key) -> bytes:
    """A key in few bytes: hundreds of thousands are in memory at once."""
    return hashlib.sha256(f"{key.kind}\0{key.owner}\0{key.item}".encode("utf-8", "surrogatepass")).digest()[:16]


def _read(file: FileIO) -> dict[bytes, int]:
    """Where the results of a file stand, the last of each; half a line at its end is cut off."""
    found: dict[bytes, int] = {}
    start = 0
    with open(file.fileno(), "rb", closefd=False) as lines:
        lines.seek(0)
        for line in lines:
            if not line.endswith(b"\n"):
                os.ftruncate(file.fileno(), start)
                break
            if (entry := _entry(line)) is not None:
                found[_short(entry[0])] = start << _BITS | len(line)
            start += len(line)
    return found


def _entry(line: bytes) -> tuple[Key, Any] | None:
    """A line's key and value, None for what a power cut made of it."""
    try:
        kind, owner, item, value = parse_line(line)
    except (ValueError, TypeError):
        return None
    return (Key(cast("Kind", kind), str(owner), str(item)), value) if isinstance(kind, str) else None
