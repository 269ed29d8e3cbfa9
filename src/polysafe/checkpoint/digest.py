"""SHA-256 of input files, remembered while size, times and inode stay the same."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from polysafe.checkpoint.source import Checkpoint
from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes, write_json_atomic
from polysafe.files.json_file import remembered
from polysafe.progress import counted

_BLOB = re.compile(r"^[0-9a-f]{64}$")


def checkpoint_digests(checkpoint: Checkpoint, advance: Callable[[int], None] | None = None) -> dict[str, str]:
    """SHA-256 of every weight file by its name; files are read once and remembered.

    Args:
        checkpoint: The checkpoint.
        advance: Told the number of bytes of every read; by default they are a stage of their own.

    Raises:
        CheckpointError: A file cannot be read, or is not what its name says.
    """
    if advance is None:
        advance = counted(f"hashing {checkpoint.root.name}", sum(header.size for header in checkpoint.headers))
    return {path.name: file_digest(path, advance) for path in checkpoint.files}


def model_sha256(checkpoint: Checkpoint, changed: Mapping[str, str] | None = None) -> str:
    """Identity of a model: equal for equal files, config and changes, whatever they are called.

    Args:
        checkpoint: Its files.
        changed: SHA-256 of the tensors that an edit or an adapter gives otherwise than the files.
    """
    return identity_of(checkpoint_digests(checkpoint).values(), checkpoint.config, changed)


def identity_of(files: Iterable[str], config: Mapping[str, Any], changed: Mapping[str, str] | None = None) -> str:
    """`model_sha256` of a model whose hashes are known.

    Args:
        files: SHA-256 of its weight files.
        config: Content of its `config.json`.
        changed: As for `model_sha256`.
    """
    content = {"files": sorted(files), "changed": dict(sorted((changed or {}).items())), "config": dict(config)}
    try:
        text = json_bytes(content)
    except ValueError:  # configs hold Infinity (`time_step_limit` of Mamba-2), which JSON does not
        text = json_bytes({**content, "config": _finite(content["config"])})
    return hashlib.sha256(text).hexdigest()


def _finite(value: Any) -> Any:
    """The value with its numbers that are none in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def file_digest(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file, from the memory if possible.

    Files in a hub cache carry their hash as the name of the blob. It says what they should be, and is not believed.

    Args:
        path: The file.
        advance: Told the number of bytes of every read.

    Raises:
        CheckpointError: The file cannot be read, or is not what its name says.
    """
    target = path.resolve()
    try:
        status = target.stat()
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=path) from error
    named = target.name if target.parent.name == "blobs" and _BLOB.match(target.name) else None
    digest = _digest(target, status, advance)
    if named not in (None, digest):
        raise CheckpointError(
            f"is not what the hub gave: its SHA-256 is {digest}, its name in the hub's cache {named}",
            where=path,
            remedy="remove it from the cache, and fetch the model again",
        )
    return digest


def _digest(target: Path, status: os.stat_result, advance: Callable[[int], None]) -> str:
    # The change time too: unlike the modification time, no program can set it back.
    key = [str(target), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    memory = _memory_file(key)
    remembered = _recall(memory, key)
    if remembered is not None:
        advance(status.st_size)
        return remembered
    digest = hash_file(target, advance)
    _remember(memory, key, digest)
    return digest


def hash_file(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file, read now.

    Raises:
        CheckpointError: The file cannot be read.
    """
    digest = hashlib.sha256()
    buffer = bytearray(4 << 20)
    view = memoryview(buffer)
    try:
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(view[:count])
                advance(count)
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=path) from error
    return digest.hexdigest()


def cache_directory() -> Path:
    """Where polysafe keeps what it can compute again: `$POLYSAFE_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("POLYSAFE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polysafe"


def _memory_file(key: list[object]) -> Path:
    return cache_directory() / "digests" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"


def _recall(memory: Path, key: list[object]) -> str | None:
    record = remembered(memory)
    return str(record["sha256"]) if record.get("key") == key and "sha256" in record else None


def _remember(memory: Path, key: list[object], digest: str) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(memory, {"key": key, "sha256": digest})
    except OSError:
        return  # a cache that cannot be written costs time, never the result
