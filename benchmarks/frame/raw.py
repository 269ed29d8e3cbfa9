"""`python -m benchmarks.frame.raw OUT FOLDER…`: reads and hashes the weights of folders, and writes the last ones."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path

BLOCK = 1 << 20


def main(out: Path, *folders: Path) -> None:
    """A thread for each file that is hashed, and this one for what is written."""
    readers = [threading.Thread(target=_hash, args=(folder / "model.safetensors",)) for folder in folders]
    for reader in readers:
        reader.start()
    out.mkdir(parents=True)
    buffer = bytearray(BLOCK)
    source, target = (folder / "model.safetensors" for folder in (folders[-1], out))
    with source.open("rb", buffering=0) as file, target.open("wb", buffering=0) as written:
        while count := file.readinto(buffer):
            written.write(memoryview(buffer)[:count])
        os.fsync(written.fileno())
    for reader in readers:
        reader.join()


def _hash(path: Path) -> None:
    digest, buffer = hashlib.sha256(), bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
