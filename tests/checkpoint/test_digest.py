from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import pytest

from polysafe.checkpoint import digest
from polysafe.checkpoint.digest import (
    cache_directory,
    checkpoint_digests,
    file_digest,
    hash_file,
    identity_of,
    model_sha256,
)
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes
from tests.checkpoint.test_source import hub_layout
from tests.models import tiny_llama


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))


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
    (memory,) = (cache_directory() / "digests").iterdir()
    memory.write_bytes(content)
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
