from __future__ import annotations

import os
from pathlib import Path

import pytest

from polysafe.files.atomic import (
    json_bytes,
    publish_directory,
    remove_unfinished,
    write_bytes_atomic,
    write_json_atomic,
)
from tests.checkpoint.faults import KilledError, disk_full, failing


def test_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "ä file"
    write_bytes_atomic(path, b"old")
    write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("point", [1, 2])
def test_a_failure_keeps_the_old_file_and_no_other(point: int, tmp_path: Path) -> None:
    write_bytes_atomic(tmp_path / "f", b"old")
    with failing(point, disk_full), pytest.raises(OSError, match="No space"):
        write_bytes_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_data_is_flushed_before_the_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("which file a descriptor belongs to is not shown here")
    order: list[str] = []
    rename = os.replace

    def renamed(old: Path, new: Path) -> None:
        order.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", lambda descriptor: order.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    monkeypatch.setattr(os, "replace", renamed)
    write_bytes_atomic(tmp_path / "f", b"x")
    assert [Path(step).name.startswith(".f.") for step in order] == [True, False, False]
    assert order[1:] == ["rename", str(tmp_path)]


def test_what_a_killed_write_leaves_is_removed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for folder in (tmp_path, tmp_path / "sub"):
        write_bytes_atomic(folder / ".hidden.tmp", b"mine")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", lambda *_, **__: None)
            with failing(1, KilledError), pytest.raises(KilledError):
                write_bytes_atomic(folder / "f", b"x")
        assert len(list(folder.iterdir())) > 1
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden.tmp", "sub"]
    assert os.listdir(tmp_path / "sub") == [".hidden.tmp"]


def test_json_form(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "f.json", {"ж": [1, 0.1]})
    assert (tmp_path / "f.json").read_text(encoding="utf-8") == '{\n "ж": [\n  1,\n  0.1\n ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes(float("nan"))


@pytest.mark.parametrize("exists", [False, True])
def test_publishing_a_folder(exists: bool, tmp_path: Path) -> None:
    finished, target = tmp_path / "work", tmp_path / "out"
    finished.mkdir()
    (finished / "f").write_text("x")
    if exists:
        target.mkdir()
    publish_directory(finished, target)
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(target) == ["f"]


def test_publishing_replaces_nothing(tmp_path: Path) -> None:
    finished, target = tmp_path / "work", tmp_path / "out"
    for folder in (finished, target):
        folder.mkdir()
        (folder / folder.name).write_text("x")
    with pytest.raises(OSError, match="not empty"):
        publish_directory(finished, target)
    assert os.listdir(target) == ["out"]
    assert os.listdir(finished) == ["work"]
