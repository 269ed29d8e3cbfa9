"""Writes one output file as a stream, and picks up where a killed run stopped.

The header is written first and tensors follow at their offsets, so nothing but the current block is in memory. At
intervals the data is flushed to the disk and a small progress file records how far the file is good; a resumed run
truncates to that point, hashes what is there and goes on. The record is only ever written after the data it speaks
of is durable, so it cannot promise bytes that a power cut took.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Self

from polysafe.checkpoint.layout import Shard
from polysafe.errors import CheckpointError, OutputError, PolysafeError
from polysafe.files.atomic import write_json_atomic
from polysafe.files.json_file import remembered
from polysafe.files.plain import is_shared

SYNC_BYTES = 64 << 20
"""Bytes between two durable points: what a killed run has to do again at most, beside one tensor.

Flushing goes on while the next bytes are computed, so a short distance also keeps the disk busy from the start.
"""

HASH_AHEAD = 4
"""Blocks that may wait to be hashed, so that the hashing thread, the slowest of a copy, never waits itself."""

Produce = Callable[[str], Iterator[memoryview]]
"""Gives the bytes of a tensor of the output, block by block."""


def write_shard(
    shard: Shard, folder: Path, progress_file: Path, produce: Produce, advance: Callable[[int], None]
) -> str:
    """Writes a shard into `folder`, resuming what an earlier run left there, and returns its SHA-256.

    Args:
        shard: The file to write.
        folder: Where it goes. Unfinished files live here too; the caller renames the folder when all is done.
        progress_file: Where the durable progress of this shard is kept.
        produce: Source of the tensor bytes.
        advance: Told the number of bytes done, for progress display.

    Raises:
        OutputError: The disk is full or cannot be written to. What was written stays for the next run.
    """
    try:
        return _write(shard, folder, progress_file, produce, advance)
    except OSError as error:
        raise output_error(folder / shard.name, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """The refusal for a failed write, with the remedy that fits its cause."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutputError("the disk is full", where=path, remedy="free some space and run again; it resumes")
    return OutputError(f"cannot be written: {error.strerror or error}", where=path)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Within it, a failed write is told by `output_error`, also one that a library in Rust names in its words alone.

    Raises:
        OutputError: A write failed.
    """
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None or isinstance(error, PolysafeError):
            raise
        raise output_error(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error


def _write(shard: Shard, folder: Path, progress_file: Path, produce: Produce, advance: Callable[[int], None]) -> str:
    path = folder / shard.name
    done, finished = _progress(progress_file)
    if is_shared(path):
        path.unlink()  # only the name: writing on would change the file behind it
    if finished is not None and path.exists() and path.stat().st_size == shard.size:
        advance(shard.size)
        return finished
    digest = hashlib.sha256()
    with (
        open(path, "r+b" if path.exists() else "x+b", buffering=0) as file,
        _Background("sha256", waiting=HASH_AHEAD) as hashing,
        _Background("fsync") as flushing,
    ):
        position = _restore(file, done if done in _durable_points(shard) else 0, digest.update)
        advance(position)
        for offset, block in _stream(shard, position, produce):
            if block is not None:
                _write_all(file, block)
                hashing.start(digest.update, block)
                advance(block.nbytes)
            elif offset - position >= SYNC_BYTES:
                flushing.start(_commit, file, offset, progress_file)
                position = offset
        hashing.wait()
        flushing.wait()
        os.fsync(file.fileno())
    write_json_atomic(progress_file, {"offset": shard.size, "sha256": digest.hexdigest()})
    return digest.hexdigest()


def _stream(shard: Shard, position: int, produce: Produce) -> Iterator[tuple[int, memoryview | None]]:
    """Blocks from `position` on, each with the offset of its start; `None` marks the end of header or tensor."""
    offset = len(shard.header)
    if position == 0:
        yield 0, memoryview(shard.header)
        yield offset, None
    for spec in shard.tensors:
        if offset >= position:
            start = offset
            for block in produce(spec.name):
                yield start, block
                start += block.nbytes
            if start - offset != spec.nbytes:
                raise CheckpointError(f"{start - offset} bytes were produced for {spec.nbytes}", where=spec.name)
            yield start, None
        offset += spec.nbytes


def _progress(progress_file: Path) -> tuple[int, str | None]:
    """Durable bytes of the shard, and its hash if it was finished. A record that cannot be read promises nothing."""
    try:
        record = remembered(progress_file)
        return int(record["offset"]), record.get("sha256")
    except (ValueError, KeyError, TypeError):
        return 0, None


def _durable_points(shard: Shard) -> frozenset[int]:
    """The ends of header and tensors: the only places where a run can pick up."""
    return frozenset(accumulate((spec.nbytes for spec in shard.tensors), initial=len(shard.header)))


def _restore(file: IO[bytes], done: int, update: Callable[[bytes], None]) -> int:
    """Brings file and hash to the last durable point and returns it."""
    size = os.fstat(file.fileno()).st_size
    done = done if done <= size else 0
    file.truncate(done)
    remaining = done
    while remaining:
        block = file.read(min(remaining, 4 << 20))
        update(block)
        remaining -= len(block)
    return done


def _commit(file: IO[bytes], offset: int, progress_file: Path) -> None:
    os.fsync(file.fileno())
    write_json_atomic(progress_file, {"offset": offset})


def _write_all(file: IO[bytes], block: memoryview) -> None:
    view = block.cast("B")
    while view:
        view = view[file.write(view) :]


class _Background:
    """A thread that does jobs in order. Few may wait, which bounds memory; what one raised is raised to who waits.

    Hashing a block costs as much as copying it, and flushing waits for the disk; both leave the interpreter free. A
    pool of one thread did the same, with 0.1 ms of locks in Python for every block.

    Args:
        name: Name of the thread.
        waiting: Jobs that may be unfinished when another one is started.
    """

    def __init__(self, name: str, waiting: int = 1) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._waiting, self._unfinished = waiting, 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()

    def start(self, job: Callable[..., None], *arguments: object) -> None:
        """Starts a job after those before it. What it was given must not change meanwhile."""
        self._finish(self._waiting - 1)
        self._unfinished += 1
        self._jobs.put(partial(job, *arguments))

    def wait(self) -> None:
        """Waits for all jobs."""
        self._finish(0)

    def _finish(self, left: int) -> None:
        while self._unfinished > left:
            error = self._ended.get()
            self._unfinished -= 1
            if error is not None:
                raise error

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # noqa: BLE001 — raised again by who waits
                self._ended.put(error)
            else:
                self._ended.put(None)
