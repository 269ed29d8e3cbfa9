"""SHA-256 of input files, remembered while their sizes and times stay the same."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any

from polysafe.checkpoint.source import Checkpoint
from polysafe.errors import CheckpointError
from polysafe.files import memory
from polysafe.files.atomic import json_bytes
from polysafe.progress import counted
from polysafe.threads import in_order

_DIGESTS = "digests"
_BLOB = re.compile(r"^[0-9a-f]{64}$")


_ahead: ContextVar[Mapping[Path, Future[str]]] = ContextVar("ahead", default=MappingProxyType({}))


class _StoppedError(Exception):
    """Nobody wants the hash any more."""


@contextmanager
def hashed_ahead(checkpoints: Iterable[Checkpoint]) -> Iterator[None]:
    """Within it, files of checkpoints are hashed by a thread, while the caller does something else.

    Who wants a digest takes what is there, waits for what is under way, and hashes the rest itself. A first run waits
    for torch, and then reads the same files to decide: neither has to be done when hashing begins.

    Args:
        checkpoints: The checkpoints.
    """
    stopped = Event()

    def advance(_: int) -> None:
        if stopped.is_set():
            raise _StoppedError

    files = dict.fromkeys(path.resolve() for checkpoint in checkpoints for path in checkpoint.files)
    pool = ThreadPoolExecutor(1, thread_name_prefix="hash")
    context = copy_context()  # of the caller, who may note what is read (`files.memory`)
    before = _ahead.set({path: pool.submit(context.run, file_digest, path, advance) for path in files})
    try:
        yield
    finally:
        _ahead.reset(before)
        stopped.set()
        pool.shutdown(cancel_futures=True)


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
    names = [path.name for path in checkpoint.files]
    return dict(zip(names, in_order(partial(file_digest, advance=advance), checkpoint.files), strict=True))


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
    ahead = _ahead.get().get(target)
    if ahead is not None and not ahead.cancel():
        digest = ahead.result()
        advance(status.st_size)
        return digest
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
    stamps, began = [memory.Stamp.of(target, status)], time.time()
    known = memory.recall(_DIGESTS, stamps)
    if known is not None and isinstance(known.get("sha256"), str):
        advance(status.st_size)
        return str(known["sha256"])
    digest = hash_file(target, advance)
    memory.keep(_DIGESTS, stamps, {"sha256": digest}, began=began)
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
