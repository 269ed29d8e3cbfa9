"""Durable writes: a file or folder is there whole, or not at all.

The order matters and is the same everywhere: write beside the target, flush the data to the disk, rename, flush the
folder that holds the name. Without the first flush a power cut can leave a complete-looking file of zeros; without
the second the name itself can vanish. Files are created by `open`, so the user's umask decides their mode.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from polysafe.files.plain import is_shared

_UNFINISHED = ".polysafe-tmp"


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Replaces `path` by a file that holds `data`; on any failure the old file is untouched.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    write_parts_atomic(path, (data,))


def write_parts_atomic(path: Path, parts: Iterable[bytes]) -> None:
    """The same of a file that is made part by part, so that it need not be in memory.

    Raises:
        OSError: As for `write_bytes_atomic`; and whatever making the parts raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        if is_shared(temporary):
            temporary.unlink()  # a killed write leaves a file, and nobody else has to put anything there
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_json_atomic(path: Path, value: object) -> None:
    """Replaces `path` by readable JSON of `value`, byte for byte the same for the same value."""
    write_bytes_atomic(path, json_bytes(value))


def json_bytes(value: object) -> bytes:
    """The one JSON form that polysafe writes: indented, UTF-8, without NaN, ending in a newline."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    # Names of files that are no UTF-8 hold lone surrogates; their backslash form is the JSON escape of the text.
    return (text + "\n").encode("utf-8", "backslashreplace")


def publish_directory(finished: Path, target: Path) -> None:
    """Gives the folder `finished` its final name. `target` must be absent or an empty folder.

    Raises:
        OSError: `target` holds something, or lies on another file system.
    """
    sync_directory(finished)
    if os.name == "nt" and target.is_dir():  # Windows does not rename onto an empty folder
        target.rmdir()
    os.rename(finished, target)
    sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Flushes the names in a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(folder: Path) -> None:
    """Removes what atomic writes left in a folder when their process was killed."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        path.unlink()
