from __future__ import annotations

import builtins
import errno
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from polysafe.checkpoint import reader, writer
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.layout import Shard, plan_layout
from polysafe.checkpoint.source import SINGLE, open_checkpoint
from polysafe.checkpoint.writer import output_error, write_shard
from polysafe.errors import CheckpointError, OutputError
from tests.checkpoint.faults import KilledError, disk_full, failing
from tests.checkpoint.raw import write_config

SIZES = [700, 0, 1, 300, 999, 64]


def content(name: str, size: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(size)


def blocks(name: str, size: int, step: int = 100) -> Iterator[memoryview]:
    data = content(name, size)
    return (memoryview(data)[i : i + step] for i in range(0, size, step))


@pytest.fixture
def shard() -> Shard:
    specs = [TensorSpec(f"t{i}", "U8", (n,), Path("f"), 0, n) for i, n in enumerate(SIZES)]
    return plan_layout(specs, 10**9).shards[0]


@pytest.fixture
def write(shard: Shard, tmp_path: Path) -> Callable[..., str]:
    sizes = {spec.name: spec.nbytes for spec in shard.tensors}

    def run(step: int = 100, advance: Callable[[int], None] = lambda _: None) -> str:
        return write_shard(
            shard, tmp_path, tmp_path / "progress.json", lambda name: blocks(name, sizes[name], step), advance
        )

    return run


@pytest.fixture
def expected(shard: Shard) -> bytes:
    return shard.header + b"".join(content(spec.name, spec.nbytes) for spec in shard.tensors)


def test_a_slow_hash_is_that_of_the_bytes_though_buffers_are_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer may be filled anew only when its block was hashed."""
    monkeypatch.setattr(reader, "COPY_BYTES", 64)
    save_file({"w": torch.arange(400, dtype=torch.int64)}, write_config(tmp_path) / SINGLE)
    shard = plan_layout(list(open_checkpoint(tmp_path).tensors.values()), 10**9).shards[0]
    monkeypatch.setattr(writer, "hashlib", SimpleNamespace(sha256=Slow))
    (tmp_path / "out").mkdir()
    copies = reader.Copies(writer.HASH_AHEAD)
    with reader.CheckpointReader(open_checkpoint(tmp_path)) as files:
        found = write_shard(
            shard, tmp_path / "out", tmp_path / "p.json", lambda name: copies.of(files, name), lambda _: None
        )
    assert found == hashlib.sha256((tmp_path / "out" / shard.name).read_bytes()).hexdigest()


class Slow:
    """SHA-256 that is the slowest of all."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.hexdigest = self._digest.hexdigest

    def update(self, block: memoryview) -> None:
        time.sleep(0.002)
        self._digest.update(block)


@pytest.fixture
def durable_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SYNC_BYTES", 1)


@pytest.mark.parametrize("step", [1, 100, 10**6])
def test_file_and_hash(step: int, write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path) -> None:
    advanced: list[int] = []
    digest = write(step, advanced.append)
    assert (tmp_path / shard.name).read_bytes() == expected
    assert digest == hashlib.sha256(expected).hexdigest()
    assert sum(advanced) == shard.size


def test_finished_shard_is_not_written_again(
    write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path
) -> None:
    digest = write()
    before = (tmp_path / shard.name).stat()
    advanced: list[int] = []
    assert write(advance=advanced.append) == digest
    assert advanced == [shard.size]
    assert (tmp_path / shard.name).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.fault(10, "every durable point")
@pytest.mark.usefixtures("durable_everywhere")
def test_end_at_any_durable_point_is_resumed(
    write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path
) -> None:
    with failing(None, KilledError) as counter:
        write()
    assert counter.calls > 2 * len(SIZES)
    for point in range(1, counter.calls + 1):
        for file in tmp_path.iterdir():
            file.unlink()
        with failing(point, KilledError), pytest.raises(KilledError):
            write()
        assert write() == hashlib.sha256(expected).hexdigest(), point
        assert (tmp_path / shard.name).read_bytes() == expected, point


@pytest.mark.usefixtures("durable_everywhere")
def test_resuming_goes_on_where_it_stopped(write: Callable[..., str], shard: Shard, tmp_path: Path) -> None:
    """Only the tensor that was being written is produced again."""
    produced: list[str] = []

    def produce(name: str, *, until: int) -> Iterator[memoryview]:
        produced.append(name)
        if len(produced) > until:
            raise KilledError
        return blocks(name, dict(zip((f"t{i}" for i in range(9)), SIZES, strict=False))[name])

    with pytest.raises(KilledError):
        write_shard(shard, tmp_path, tmp_path / "progress.json", lambda n: produce(n, until=4), lambda _: None)
    produced.clear()
    write_shard(shard, tmp_path, tmp_path / "progress.json", lambda n: produce(n, until=99), lambda _: None)
    assert produced == ["t4", "t5"]


@pytest.mark.hostile("output")
@pytest.mark.usefixtures("durable_everywhere")
@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"offset": null}',
        b'{"offset": "x"}',
        b'{"offset": -1}',
        b'{"offset": 999999}',
        b'{"offset": 5}',
        b"\xff\xfe",
    ],
)
def test_torn_or_foreign_progress_promises_nothing(
    record: bytes, write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path
) -> None:
    with failing(9, KilledError), pytest.raises(KilledError):
        write()
    (tmp_path / "progress.json").write_bytes(record)
    assert write() == hashlib.sha256(expected).hexdigest()
    assert (tmp_path / shard.name).read_bytes() == expected


def test_bytes_beyond_the_durable_point_are_dropped(
    write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path
) -> None:
    (tmp_path / "progress.json").write_text(f'{{"offset": {len(shard.header)}}}')
    (tmp_path / shard.name).write_bytes(shard.header + b"\xee" * 2 * shard.size)
    assert write() == hashlib.sha256(expected).hexdigest()
    assert (tmp_path / shard.name).read_bytes() == expected


def test_lost_file_is_written_anew(write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path) -> None:
    """A power cut may take the name of a file whose progress survived."""
    write()
    (tmp_path / shard.name).unlink()
    write()
    assert (tmp_path / shard.name).read_bytes() == expected


@pytest.mark.parametrize("count", [-1, 1])
def test_producer_of_the_wrong_size(count: int, shard: Shard, tmp_path: Path) -> None:
    sizes = {spec.name: spec.nbytes for spec in shard.tensors}
    with pytest.raises(CheckpointError, match=f"{699 if count < 0 else 701} bytes were produced for 700"):
        write_shard(shard, tmp_path, tmp_path / "p", lambda n: blocks(n, sizes[n] + count), lambda _: None)


class FullDisk(io.FileIO):
    """A file on a disk that has room for `room` more bytes, and says so as disks do: by writing less."""

    room = 0

    def write(self, data: Any) -> int:
        fits = memoryview(data)[: type(self).room]
        if not len(fits):
            raise disk_full()
        type(self).room -= len(fits)
        return super().write(fits)


@pytest.mark.fault(11, "full at any write, flush and rename")
@pytest.mark.parametrize("room", [0, 10, 200, 500, 1300, 2400])
def test_disk_full_at_any_byte_is_resumed(
    room: int, write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SYNC_BYTES", 1)
    monkeypatch.setattr(FullDisk, "room", room)
    opened = builtins.open

    def limited(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        return FullDisk(file, mode) if named.get("buffering") == 0 else opened(file, mode, *arguments, **named)

    monkeypatch.setattr(builtins, "open", limited)
    with pytest.raises(OutputError, match="the disk is full") as caught:
        write()
    assert caught.value.where == tmp_path / shard.name
    assert "resumes" in str(caught.value.remedy)
    monkeypatch.setattr(builtins, "open", opened)
    assert write() == hashlib.sha256(expected).hexdigest()
    assert (tmp_path / shard.name).read_bytes() == expected


@pytest.mark.fault(11, "full at any write, flush and rename")
@pytest.mark.usefixtures("durable_everywhere")
@pytest.mark.parametrize("point", [1, 2, 3, 4, 7, 10])
def test_disk_full_when_flushing(
    point: int, write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path
) -> None:
    with failing(point, disk_full), pytest.raises(OutputError, match="the disk is full"):
        write()
    assert write() == hashlib.sha256(expected).hexdigest()
    assert (tmp_path / shard.name).read_bytes() == expected


def test_other_failures_say_what_the_system_says() -> None:
    assert "disk is full" in str(output_error(Path("f"), OSError(errno.EDQUOT, "quota")))
    assert output_error(Path("f"), OSError(errno.EROFS, "Read-only file system")).problem == (
        "cannot be written: Read-only file system"
    )


def test_short_writes_are_continued(
    write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(memoryview(data)[:13])

    opened = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda f, m="r", *a, **k: Slow(f, m) if k.get("buffering") == 0 else opened(f, m, *a, **k)
    )
    write()
    monkeypatch.undo()
    assert (tmp_path / shard.name).read_bytes() == expected


@pytest.mark.fault(14, "the umask")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_umask_decides_the_mode(umask: int, write: Callable[..., str], shard: Shard, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write()
    finally:
        os.umask(before)
    for name in (shard.name, "progress.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.hostile("output")
@pytest.mark.parametrize("make", [os.link, os.symlink, lambda _, path: os.mkfifo(path)])
def test_nothing_is_written_through_links_and_pipes(
    make: Callable[[Path, Path], object], write: Callable[..., str], shard: Shard, expected: bytes, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    make(victim, tmp_path / shard.name)
    (tmp_path / "progress.json").write_text(f'{{"offset": {len(shard.header)}}}')
    write()
    assert victim.read_bytes() == b"precious" * 1000
    assert (tmp_path / shard.name).read_bytes() == expected
