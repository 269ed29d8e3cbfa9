"""What was answered and judged before, in one SQLite file that all runs of a user share.

The file is content-addressed (`keys.py`), so that an entry can be stale in no way: a model with other weights has other
keys. Any number of threads and processes may use it at the same time. Values are JSON text; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from polysafe.errors import DataError, OutputError, PolysafeError, ResourceError
from polysafe.evaluate.keys import Key
from polysafe.files.json_file import parse_line
from polysafe.files.memory import cache_directory

SCHEMA = 1
FILE = "answers.sqlite"

_APPLICATION = 0x70536166  # "pSaf", so that the file of another program is told from ours
_PATIENCE = 60.0
_REMEDY = "delete it and its -wal and -shm files, or name another cache; answers are then asked for again"
_TABLE = """
CREATE TABLE entries (
    kind TEXT NOT NULL, owner TEXT NOT NULL, item TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (kind, owner, item)
) WITHOUT ROWID
"""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_NO_PLACE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}


class Cache:
    """Results by their keys. Opened when it is first used.

    Args:
        path: The file; by default one in the user's cache folder (`$POLYSAFE_CACHE`).
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = cache_directory() / FILE if path is None else Path(path)
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def get(self, key: Key) -> Any | None:
        """The value stored under a key, None where there is none.

        Raises:
            DataError: The file is damaged, of another schema, or of another program.
            ResourceError: Another process keeps it busy, or the disk is full.
            OutputError: The file cannot be opened.
        """
        with self._use() as connection:
            row = connection.execute(
                "SELECT value FROM entries WHERE kind = ? AND owner = ? AND item = ?", (key.kind, key.owner, key.item)
            ).fetchone()
        return None if row is None else self._decode(row[0])

    def put(self, key: Key, value: Any) -> None:
        """Stores a value that JSON can hold. What is there already stays: equal keys mean equal values.

        Raises:
            PolysafeError: As `get`.
        """
        text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        with self._use() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?)", (key.kind, key.owner, key.item, text)
            )

    def __len__(self) -> int:
        with self._use() as connection:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])

    def __bool__(self) -> bool:
        return True  # an empty cache is a cache

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._guard:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        with self._guard, _explained(self.path):
            # A connection must not be used, nor closed, in a forked child of the process that opened it.
            if self._connection is None or self._process != os.getpid():
                self._connection = _open(self.path)
                self._process = os.getpid()
            yield self._connection

    def _decode(self, text: object) -> Any:
        try:
            return parse_line(str(text))
        except ValueError as error:
            raise DataError(f"the cache is damaged: {error}", where=self.path, remedy=_REMEDY) from error


def _open(path: Path) -> sqlite3.Connection:
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    # The change to write-ahead logging is the one step at which SQLite does not wait for other processes.
    with FileLock(f"{path}.lock", timeout=_PATIENCE):
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, version, tables) == (0, 0, 0):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    elif application != _APPLICATION:
        raise DataError("is the database of another program", where=path, remedy="name another file as the cache")
    elif version != SCHEMA:
        raise _other_schema(path, version)
    connection.execute("PRAGMA journal_mode = WAL")
    # Enough for a process that is killed; a power cut may take the last answers, never the file.
    connection.execute("PRAGMA synchronous = NORMAL")


def _other_schema(path: Path, version: int) -> DataError:
    remedy = _REMEDY if version < SCHEMA else f"update polysafe; or {_REMEDY}"
    return DataError(f"has schema {version}, this polysafe reads schema {SCHEMA}", where=path, remedy=remedy)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system say into errors with a remedy."""
    from filelock import Timeout

    try:
        yield
    except sqlite3.Error as error:
        raise _refusal(path, error) from error
    except Timeout as error:
        raise ResourceError("another process keeps the cache busy", where=path, remedy="wait for it") from error
    except OSError as error:
        raise OutputError(f"the cache cannot be opened: {error.strerror or error}", where=path) from error


def _refusal(path: Path, error: sqlite3.Error) -> PolysafeError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the upper bits say more than is needed
    if code in _BUSY:
        return ResourceError("another process keeps the cache busy", where=path, remedy="wait for it and run again")
    if code == sqlite3.SQLITE_FULL:
        return ResourceError("the disk is full", where=path, remedy="free some space and run again; it resumes")
    if code in _NO_PLACE:
        return OutputError(f"the cache cannot be used: {error}", where=path, remedy="name another cache")
    return DataError(f"the cache is damaged: {error}", where=path, remedy=_REMEDY)
