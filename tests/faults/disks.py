"""Small disks to fill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size in a new folder; the test is skipped where none may be mounted."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")
    if done.returncode != 0:
        pytest.skip(f"file systems may not be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def enlarge(place: Path) -> None:
    """Makes room on a file system of `mounted`."""
    subprocess.run(["mount", "-o", "remount,size=10m", str(place)], check=True)
