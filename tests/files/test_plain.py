from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from polysafe.files.atomic import write_bytes_atomic
from polysafe.files.plain import TooLargeError, is_name_inside, is_shared, leads_through_link, read_plain


def test_files_and_links_to_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "l").symlink_to("f")
    assert read_plain(tmp_path / "f") == read_plain(tmp_path / "l", largest=3) == b"abc"


def test_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="a pipe or a device"):
            read_plain(path)
    with pytest.raises(IsADirectoryError):
        read_plain(tmp_path)


def test_sparse_gigabytes_are_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        file.truncate(30 << 30)
    with pytest.raises(TooLargeError, match="larger than 1073741824 bytes"):
        read_plain(tmp_path / "f")


def test_what_writing_would_pass_on(tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"")
    (tmp_path / "f").write_bytes(b"")
    os.link(tmp_path / "f", tmp_path / "g")
    (tmp_path / "l").symlink_to("own")
    os.mkfifo(tmp_path / "pipe")
    assert {name: is_shared(tmp_path / name) for name in ("own", "absent", "f", "g", "l", "pipe")} == {
        **dict.fromkeys(("own", "absent"), False),
        **dict.fromkeys(("f", "g", "l", "pipe"), True),
    }


def test_names_inside_a_folder() -> None:
    assert all(map(is_name_inside, ["a", "a/b.json", "ä b", "..a", "a" * 1000]))
    assert not any(map(is_name_inside, ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\0", 7, None]))


def test_links_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    assert leads_through_link(tmp_path, "link")
    assert leads_through_link(tmp_path, "link/deep/f")
    assert not leads_through_link(tmp_path, "real/deep/f")
    assert not leads_through_link(tmp_path / "link", "deep/f")  # the root is the user's own name for it


@pytest.mark.parametrize("make", [os.link, os.symlink])
def test_atomic_writes_follow_no_link(make: object, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    assert callable(make)
    make(tmp_path / "victim", tmp_path / f".f.{os.getpid()}.polysafe-tmp")
    write_bytes_atomic(tmp_path / "f", b"new")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "f").read_bytes() == b"new"
    assert not (tmp_path / "f").is_symlink()


def test_room_is_made_for_what_is_there_alone(tmp_path: Path) -> None:
    """A small file is read where there is little memory, however large it might be."""
    (tmp_path / "f").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_plain(tmp_path / "f", largest=1 << 28) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
