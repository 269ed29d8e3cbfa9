"""Files and folders that other people may have placed: what a path really is, told before it is read or written.

A name in a folder can be a link to a file elsewhere, a second name of one, a pipe that never ends, or thirty gigabytes
of nothing. Reading goes through `read_plain`; whoever writes on in a file that lay there asks `is_shared` first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LARGEST = 1 << 30
"""Most bytes of a file that is read at once."""


class TooLargeError(OSError):
    """A file is larger than anything of its kind."""


def read_plain(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a regular file. A pipe or a device is not waited for.

    Args:
        path: The file; a link to one will do.
        largest: Most bytes that it may have.

    Raises:
        TooLargeError: It has more; nothing was read.
        OSError: It cannot be read, or is no regular file.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= largest else b""  # as much as is asked for is allocated
        if size < len(content) <= largest:  # it grows
            content += file.read(largest + 1 - len(content))
    if max(size, len(content)) > largest:
        raise TooLargeError(errno.EFBIG, f"it is larger than {largest} bytes")
    return content


def first_bytes(path: Path, count: int) -> bytes:
    """How a regular file begins: its first bytes, fewer where it has fewer.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    with _opened(path) as file:
        return file.read(count)


def is_shared(path: Path) -> bool:
    """Whether writing to a path would reach something else: a link, a second name of a file, a pipe. Nothing does not.

    Raises:
        OSError: It cannot be looked at.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(status.st_mode) or status.st_nlink > 1


def remove_shared(folder: Path) -> None:
    """Removes from a folder of ours what writing there would pass on: links, pipes, second names of other files.

    Only names go; what they lead to stays.

    Raises:
        OSError: One cannot be removed.
    """
    for parent, folders, files in os.walk(folder):  # walks into no link
        for name in (*(name for name in folders if os.path.islink(os.path.join(parent, name))), *files):
            path = Path(parent, name)
            if is_shared(path):
                path.unlink()


def leads_through_link(root: Path, name: str) -> bool:
    """Whether a file of a folder, or a folder on the way to it, is a link.

    Args:
        root: The folder, which may be one.
        name: The file's path in it, with `/`.
    """
    parts = name.split("/")
    return any(root.joinpath(*parts[: count + 1]).is_symlink() for count in range(len(parts)))


def is_name_inside(name: object) -> bool:
    """Whether a text names a file inside a folder, on any system: no way out, no drive, nothing that ends a name."""
    return isinstance(name, str) and not {"", ".", ".."} & set(name.split("/")) and not {"\\", "\0"} & set(name)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")
        yield file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
