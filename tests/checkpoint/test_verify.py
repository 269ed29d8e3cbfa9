from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.verify import is_whole, manifest, read_manifest, verify_output
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


@pytest.mark.fault(14, "sizes and hashes")
def test_sound_output(output: Path) -> None:
    advanced: list[int] = []
    report = verify_output(output, advanced.append)
    assert report.ok
    assert report.problems == report.unlisted == ()
    assert report.files == len([path for path in output.iterdir() if path.is_file()])
    assert report.bytes == sum(advanced) == sum(path.stat().st_size for path in output.iterdir() if path.is_file())
    assert report.to_json()["ok"] is True


@pytest.mark.fault(14, "a flipped bit")
@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("position", [0, -1])
def test_one_bit(name: str, position: int, output: Path) -> None:
    content = bytearray((output / name).read_bytes())
    content[position] ^= 1
    (output / name).write_bytes(content)
    report = verify_output(output)
    assert not report.ok
    assert report.problems == (f"{name}: was changed (its SHA-256 differs from the manifest)",)


@pytest.mark.fault(14, "sizes and hashes")
def test_missing_and_truncated_files(output: Path) -> None:
    (output / "tokenizer.json").unlink()
    short = output / "model-00002-of-00002.safetensors"
    size = short.stat().st_size
    os.truncate(short, size - 1)
    assert verify_output(output).problems == (
        f"{short.name}: has {size - 1} bytes, the manifest says {size}",
        "tokenizer.json: is missing",
    )


@pytest.mark.hostile("output")
def test_file_that_became_a_folder(output: Path) -> None:
    (output / "tokenizer.json").unlink()
    (output / "tokenizer.json").mkdir()
    assert verify_output(output).problems == ("tokenizer.json: is missing",)


@pytest.mark.hostile("output")
def test_files_that_nothing_vouches_for_are_listed(output: Path) -> None:
    (output / "notes.txt").write_text("mine")
    report = verify_output(output)
    assert report.ok
    assert report.unlisted == ("notes.txt",)


@pytest.mark.hostile("output")
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


@pytest.mark.hostile("output")
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
        {**SOUND, "files": [{**FILE, "path": "a\0b"}]},
        {**SOUND, "files": [{**FILE, "path": "a\\b"}]},
        {**SOUND, "files": [{**FILE, "size": True}]},
    ],
)
def test_manifest_that_is_none(content: object, tmp_path: Path) -> None:
    write_manifest(tmp_path, SOUND)
    assert read_manifest(tmp_path) == SOUND
    write_manifest(tmp_path, content)
    with pytest.raises(CheckpointError, match=r"is no (valid )?manifest of an output|has schema (2|'1'), this"):
        read_manifest(tmp_path)


@pytest.mark.hostile("output")
def test_manifest_that_is_no_json(tmp_path: Path) -> None:
    write_manifest(tmp_path, SOUND)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        read_manifest(tmp_path)


@pytest.mark.hostile("output")
def test_no_files_are_no_model(output: Path) -> None:
    content = read_manifest(output)
    write_manifest(output, {**content, "files": []})
    problems = verify_output(output).problems
    assert f"{MANIFEST}: names no weights" in problems
    weights = "model-00001-of-00002.safetensors"
    assert f"{weights}: is not in the manifest, but is read with a model" in problems


@pytest.mark.hostile("output")
@pytest.mark.parametrize(
    "name",
    [
        "model-00003-of-00002.safetensors",
        "adapter_model.safetensors",
        "pytorch_model.bin",
        "modeling_evil.py",
        "adapter_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "generation_config.json",
    ],
)
def test_files_that_a_loader_would_read_are_named(name: str, output: Path) -> None:
    content = read_manifest(output)
    write_manifest(output, {**content, "files": [entry for entry in content["files"] if entry["path"] != name]})
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_bytes(b"{}")
    report = verify_output(output)
    assert report.problems == (f"{name}: is not in the manifest, but is read with a model",)
    assert report.unlisted == (name,)


@pytest.mark.hostile("output")
def test_a_member_that_leads_out_of_the_folder(output: Path, tmp_path: Path) -> None:
    (output / "tokenizer.json").rename(tmp_path / "elsewhere")
    (output / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    assert verify_output(output).problems == ("tokenizer.json: is a link that leads out of the checkpoint folder",)
    assert not is_whole(output, read_manifest(output))


@pytest.mark.hostile("output")
def test_a_member_behind_a_folder_that_leads_out(output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.json").write_text("{}")
    (output / "sub").symlink_to(tmp_path / "elsewhere")
    content = read_manifest(output)
    entry = {"path": "sub/x.json", "size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    write_manifest(output, {**content, "files": [*content["files"], entry]})
    assert verify_output(output).problems == ("sub/x.json: is a link that leads out of the checkpoint folder",)


def test_a_published_output_in_a_hub_cache_is_as_it_was(output: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0"
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    for path in [path for path in output.rglob("*") if path.is_file()]:
        link = snapshot / path.relative_to(output)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / digest(path))
        link.symlink_to(next(iter(sorted(blobs.iterdir(), key=lambda blob: -blob.stat().st_ctime_ns))))
    assert verify_output(snapshot).ok


@pytest.mark.hostile("output")
@pytest.mark.parametrize("name", ["x" * 1000, "y/" * 3000 + "z"])
def test_names_longer_than_any_system_has_are_missing(name: str, output: Path) -> None:
    content = read_manifest(output)
    write_manifest(output, {**content, "files": [*content["files"], {**FILE, "path": name}]})
    assert verify_output(output).problems == (f"{name}: is missing",)
    assert not is_whole(output, read_manifest(output))


def test_one_bit_of_an_output_is_told_without_verifying(output: Path) -> None:
    path = output / "model-00001-of-00002.safetensors"
    assert is_whole(output, read_manifest(output))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not is_whole(output, read_manifest(output))


@pytest.mark.hostile("output")
def test_a_manifest_that_never_ends(output: Path) -> None:
    (output / MANIFEST).unlink()
    os.mkfifo(output / MANIFEST)
    with pytest.raises(CheckpointError, match="a pipe or a device"):
        verify_output(output)


@pytest.mark.hostile("output")
def test_a_manifest_of_gigabytes(output: Path) -> None:
    os.truncate(output / MANIFEST, 30 << 30)
    with pytest.raises(CheckpointError, match="is larger than"):
        verify_output(output)
