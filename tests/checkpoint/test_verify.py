from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.verify import manifest, read_manifest, verify_output
from polysafe.errors import CheckpointError
from tests.models import tiny_llama


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A finished output in two shards."""
    folder = tiny_llama(tmp_path / "út put", shards=2)
    files = {path.name: (path.stat().st_size, digest(path)) for path in folder.iterdir()}
    write_manifest(folder, manifest("0" * 64, files, {"base": {"origin": "base", "files": {}}}))
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path, content: object) -> None:
    (folder / MANIFEST).parent.mkdir(exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(content))


def test_sound_output(output: Path) -> None:
    advanced: list[int] = []
    report = verify_output(output, advanced.append)
    assert report.ok
    assert report.problems == report.unlisted == ()
    assert report.files == len([path for path in output.iterdir() if path.is_file()])
    assert report.bytes == sum(advanced) == sum(path.stat().st_size for path in output.iterdir() if path.is_file())
    assert report.to_json()["ok"] is True


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("position", [0, -1])
def test_one_bit(name: str, position: int, output: Path) -> None:
    content = bytearray((output / name).read_bytes())
    content[position] ^= 1
    (output / name).write_bytes(content)
    report = verify_output(output)
    assert not report.ok
    assert report.problems == (f"{name}: was changed (its SHA-256 differs from the manifest)",)


def test_missing_and_truncated_files(output: Path) -> None:
    (output / "tokenizer.json").unlink()
    short = output / "model-00002-of-00002.safetensors"
    size = short.stat().st_size
    os.truncate(short, size - 1)
    assert verify_output(output).problems == (
        f"{short.name}: has {size - 1} bytes, the manifest says {size}",
        "tokenizer.json: is missing",
    )


def test_file_that_became_a_folder(output: Path) -> None:
    (output / "tokenizer.json").unlink()
    (output / "tokenizer.json").mkdir()
    assert verify_output(output).problems == ("tokenizer.json: is missing",)


def test_files_that_nothing_vouches_for_are_listed(output: Path) -> None:
    (output / "notes.txt").write_text("mine")
    report = verify_output(output)
    assert report.ok
    assert report.unlisted == ("notes.txt",)


def test_stray_weights_that_make_the_folder_ambiguous(output: Path) -> None:
    (output / "model.safetensors").write_bytes((output / "model-00001-of-00002.safetensors").read_bytes())
    report = verify_output(output)
    assert not report.ok
    assert "holds both" in report.problems[0]


def test_no_manifest(output: Path) -> None:
    (output / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="has no manifest"):
        verify_output(output)
    with pytest.raises(CheckpointError, match="has no manifest"):
        verify_output(output / "absent")


FILE: dict[str, Any] = {"path": "a", "size": 1, "sha256": "00"}
SOUND: dict[str, Any] = {"polysafe_manifest": 1, "edit": "0", "sources": {}, "files": [FILE]}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {**SOUND, "polysafe_manifest": 2},
        {**SOUND, "polysafe_manifest": "1"},
        {**SOUND, "edit": 1},
        {**SOUND, "sources": []},
        {**SOUND, "files": {}},
        {**SOUND, "files": ["a"]},
        {**SOUND, "files": [{"path": "a"}]},
        {**SOUND, "files": [{**FILE, "path": 1}]},
        {**SOUND, "files": [{**FILE, "size": "1"}]},
        {**SOUND, "files": [{**FILE, "path": "../secret"}]},
        {**SOUND, "files": [{**FILE, "path": "/etc/passwd"}]},
        {**SOUND, "files": [{**FILE, "path": "a/../../b"}]},
        {**SOUND, "files": [{**FILE, "path": ""}]},
    ],
)
def test_manifest_that_is_none(content: object, tmp_path: Path) -> None:
    write_manifest(tmp_path, SOUND)
    assert read_manifest(tmp_path) == SOUND
    write_manifest(tmp_path, content)
    with pytest.raises(CheckpointError, match=r"is no (valid )?manifest of an output|has schema (2|'1'), this"):
        read_manifest(tmp_path)


def test_manifest_that_is_no_json(tmp_path: Path) -> None:
    write_manifest(tmp_path, SOUND)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        read_manifest(tmp_path)
