"""What an unfinished run already knows: one line per result, appended as soon as it is there.

A process can be killed in the middle of a line. Such a line is cut off when the file is opened again, and what it would
have said is asked for again; nothing else is lost.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, Self

from polysafe.checkpoint.writer import output_error
from polysafe.evaluate.keys import Key
from polysafe.evaluate.records import json_line
from polysafe.files.json_file import parse_line


class Store(Protocol):
    """Something that remembers results by their keys."""

    def get(self, key: Key) -> Any | None:
        """The value, None where there is none."""

    def put(self, key: Key, value: Any) -> None:
        """Remembers a value."""


class Journal:
    """Results of one run, in memory and, line by line, in a file.

    Args:
        path: The file; its folder exists.

    Raises:
        OutputError: The file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 — open for as long as the journal is
            self._values = _read(self._file.fileno(), path)
        except OSError as error:
            raise output_error(path, error) from error

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Any | None:
        """The value, None where there is none."""
        return self._values.get(key)

    def put(self, key: Key, value: Any) -> None:
        """Remembers a value.

        Raises:
            OutputError: The disk is full.
        """
        if key in self._values:
            return
        line = json_line([key.kind, key.owner, key.item, value])
        try:
            while line:
                line = line[self._file.write(line) or 0 :]
        except OSError as error:
            raise output_error(self.path, error) from error
        self._values[key] = value

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


def _read(descriptor: int, path: Path) -> dict[Key, Any]:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(descriptor, whole)
    entries = filter(None, map(_entry, content[:whole].split(b"\n")))
    return dict(entries)


def _entry(line: bytes) -> tuple[Key, Any] | None:
    """A line's key and value, None for what a power cut made of it."""
    try:
        kind, owner, item, value = parse_line(line)
        key = Key(kind, str(owner), str(item))
        hash(key)  # a kind that is no word is no key
    except (ValueError, TypeError):
        return None
    return key, value
