from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event, get_ident

import pytest

from polysafe.checkpoint import digest
from polysafe.checkpoint.digest import (
    checkpoint_digests,
    file_digest,
    hash_file,
    hashed_ahead,
    identity_of,
    model_sha256,
)
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from polysafe.files import memory
from polysafe.files.atomic import json_bytes
from polysafe.files.memory import cache_directory
from tests.checkpoint.test_source import hub_layout
from tests.models import tiny_llama


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "TICK", -1e6)  # files of tests were made a moment ago


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 1000)
    return path


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    whole = hash_file

    def counted(path: Path, *arguments: object) -> str:
        read.append(path)
        return whole(path)

    monkeypatch.setattr(digest, "hash_file", counted)
    return read


def test_digest_is_that_of_the_bytes(file: Path) -> None:
    advanced: list[int] = []
    assert file_digest(file, advanced.append) == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert sum(advanced) == 3000


def test_second_time_is_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_digest(file)
    read = count_reads(monkeypatch)
    advanced: list[int] = []
    assert file_digest(file, advanced.append) == first
    assert read == []
    assert advanced == [3000]


def test_a_file_that_was_changed_a_moment_ago_is_not_remembered(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TICK", 3600.0)
    first = file_digest(file)
    read = count_reads(monkeypatch)
    assert file_digest(file) == first
    assert read == [file]


@pytest.mark.fault(15, "though its time is put back")
def test_change_is_seen_even_if_size_and_time_are_set_back(file: Path) -> None:
    file_digest(file)
    status = file.stat()
    file.write_bytes(b"abd" * 1000)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_digest(file) == hashlib.sha256(b"abd" * 1000).hexdigest()


@pytest.mark.fault(19, "damaged values")
@pytest.mark.hostile("record")
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": [], "sha256": "00"}'])
def test_damaged_memory_is_ignored(content: bytes, file: Path) -> None:
    right = file_digest(file)
    (kept,) = (cache_directory() / "digests").iterdir()
    kept.write_bytes(content)
    assert file_digest(file) == right


def test_cache_that_cannot_be_written_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(file / "below a file"))
    assert file_digest(file) == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_every_shard_is_listed(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_llama(tmp_path / "m", shards=2))
    assert checkpoint_digests(checkpoint) == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoint.files
    }


def test_missing_file(tmp_path: Path) -> None:
    for read in (file_digest, hash_file):
        with pytest.raises(CheckpointError, match="cannot be read: No such file"):
            read(tmp_path / "absent")


def test_place_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() == tmp_path / "cache"
    monkeypatch.delenv("POLYSAFE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "polysafe"


@pytest.mark.hostile("folder")
@pytest.mark.fault(26, "stops")
def test_blob_under_the_hash_of_another_file(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(hub_layout(tmp_path / "hub", tiny_llama(tmp_path / "m")))
    blob = checkpoint.files[0].resolve()
    assert checkpoint_digests(checkpoint) == {"model.safetensors": blob.name}
    changed = bytearray(blob.read_bytes())
    changed[-1] ^= 1
    blob.write_bytes(changed)
    for read in (checkpoint_digests, model_sha256):
        with pytest.raises(CheckpointError, match="is not what the hub gave: its SHA-256 is") as caught:
            read(checkpoint)
        assert caught.value.where == checkpoint.files[0]


def test_blob_that_is_its_name_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = count_reads(monkeypatch)
    content = b"abc" * 1000
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(content)
    assert [file_digest(blob) for _ in range(2)] == [blob.name] * 2
    assert read == [blob]


def slow_hash(monkeypatch: pytest.MonkeyPatch) -> tuple[Event, Event, list[tuple[Path, int]]]:
    """Hashing that says when it has begun and goes on when it may; and which thread hashed which file."""
    begun, may = Event(), Event()
    threads: list[tuple[Path, int]] = []
    whole = hash_file

    def slowly(path: Path, advance: Callable[[int], None] = lambda _: None) -> str:
        threads.append((path, get_ident()))
        begun.set()
        assert may.wait(60)
        advance(0)
        return whole(path)

    monkeypatch.setattr(digest, "hash_file", slowly)
    return begun, may, threads


def test_files_are_hashed_ahead_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(tiny_llama(tmp_path / "m", shards=3))
    expected = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoint.files}
    begun, may, threads = slow_hash(monkeypatch)
    advanced: list[int] = []
    with hashed_ahead([checkpoint]):
        assert begun.wait(60)  # another thread has the first file
        may.set()
        assert checkpoint_digests(checkpoint, advanced.append) == expected
    assert sorted(path for path, _ in threads) == sorted(checkpoint.files)
    assert get_ident() not in {thread for _, thread in threads[:1]}
    assert sum(advanced) >= checkpoint.files[0].stat().st_size


def test_hashing_ahead_ends_with_who_wanted_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(tiny_llama(tmp_path / "m", shards=3))
    begun, may, threads = slow_hash(monkeypatch)
    with hashed_ahead([checkpoint]):
        assert begun.wait(60)
        may.set()
    assert len(threads) <= len(checkpoint.files)
    monkeypatch.undo()
    assert checkpoint_digests(checkpoint).keys() == {path.name for path in checkpoint.files}


def test_what_is_hashed_ahead_is_noted_for_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TICK", 1e6)  # of files that were made a moment ago, notes alone are kept
    checkpoint = open_checkpoint(tiny_llama(tmp_path / "m"))
    begun, may, threads = slow_hash(monkeypatch)
    with memory.noting({}):
        with hashed_ahead([checkpoint]):
            assert begun.wait(60)
            may.set()
            first = checkpoint_digests(checkpoint)
        assert checkpoint_digests(checkpoint) == first
    assert len(threads) == 1


def test_what_fails_ahead_is_told_to_who_asks(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_llama(tmp_path / "m"))
    (tmp_path / "m" / "model.safetensors").unlink()
    with hashed_ahead([checkpoint]), pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint_digests(checkpoint)


def test_a_config_may_hold_numbers_that_are_none() -> None:
    plain = {"eps": 1e-5, "limits": [0.0, 1.0]}
    assert (
        identity_of(["f"], plain)
        == hashlib.sha256(json_bytes({"files": ["f"], "changed": {}, "config": plain})).hexdigest()
    )
    known = [
        identity_of(["f"], {**plain, **changed})
        for changed in ({}, {"limits": [0.0, math.inf]}, {"limits": [0.0, -math.inf]}, {"eps": math.nan})
    ]
    assert len(set(known)) == 4
    assert identity_of(["f"], {"eps": math.nan}) == identity_of(["f"], {"eps": math.nan})
