from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from polysafe.checkpoint.output import MANIFEST, Workspace, check_target, lock
from polysafe.errors import OutputError
from polysafe.files.atomic import write_json_atomic
from polysafe.progress import hearing
from tests.checkpoint.faults import KilledError, disk_full, failing
from tests.processes import started


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "in"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def place(source: Path, kind: str) -> Path:
    """An output place that touches an input, in one of several ways."""
    if kind == "symlink":
        link = source.parent.parent / "link"
        link.symlink_to(source)
        return link
    if kind == "inside a symlink":
        return place(source, "symlink") / "out"
    return {
        "same": source,
        "same by another way": source / ".." / source.name,
        "inside": source / "out",
        "deep inside": source / "a" / "b",
        "contains": source.parent,
        "root": Path(source.anchor),
    }[kind]


@pytest.mark.fault(12, "is an input, or inside one", "a link or a file")
@pytest.mark.hostile("output")
@pytest.mark.parametrize(
    "kind",
    ["same", "same by another way", "inside", "deep inside", "contains", "root", "symlink", "inside a symlink"],
)
def test_output_may_not_touch_an_input(kind: str, source: Path) -> None:
    with pytest.raises(OutputError, match="may not be, contain, or lie inside the input") as caught:
        check_target(place(source, kind), [source])
    assert "never written to" in str(caught.value.remedy)
    assert os.listdir(source) == ["config.json"]


@pytest.mark.parametrize("name", ["in2", "i", "out folder", "наружу"])
def test_neighbours_of_an_input_are_fine(name: str, source: Path) -> None:
    check_target(source.parent / name, [source])
    (source.parent / name).mkdir()
    check_target(source.parent / name, [source])


@pytest.mark.fault(12, "a link or a file")
@pytest.mark.hostile("output")
def test_a_file_or_a_link_is_no_place(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("file", "dangling", "link"):
        with pytest.raises(OutputError, match="exists and is not a folder"):
            check_target(tmp_path / name, [source])


@pytest.mark.fault(12, "foreign files")
def test_foreign_files_are_not_overwritten(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="holds files that polysafe did not write"):
        check_target(target, [source])
    (target / MANIFEST).parent.mkdir()
    (target / MANIFEST).write_text("{}")
    check_target(target, [source])


@pytest.mark.fault(11, "long and non-ASCII names")
@pytest.mark.parametrize("path", ["x" * 300, "y/" * 2500 + "z"])
def test_names_that_are_too_long_are_refused_with_the_reason(path: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / path
    with pytest.raises(OutputError, match="too long"):
        check_target(target, [source])
    with pytest.raises(OutputError, match="too long"), lock(target):
        pytest.fail("was locked")


@pytest.fixture
def locked_by_another_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    program = (
        "import sys, pathlib; from polysafe.checkpoint.output import lock\n"
        "with lock(pathlib.Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with started(command, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process


@pytest.mark.fault(13, "one wins and the other is told who holds it")
def test_two_processes(locked_by_another_process: subprocess.Popen[str], tmp_path: Path) -> None:
    holder = f"is being written by process {locked_by_another_process.pid} on "
    with pytest.raises(OutputError, match=holder), lock(tmp_path / "out"):
        pytest.fail("was locked twice")
    with lock(tmp_path / "another"):
        pass


def test_who_waits_says_for_whom_and_goes_on(locked_by_another_process: subprocess.Popen[str], tmp_path: Path) -> None:
    said: list[str] = []

    def heard(text: str) -> None:
        said.append(text)
        locked_by_another_process.communicate("")  # it ends only now, when somebody waits for it

    with hearing(heard), lock(tmp_path / "out", wait=True):
        assert locked_by_another_process.returncode == 0
    assert said == [f"waiting for process {locked_by_another_process.pid} on {socket.gethostname()}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(13, "a lock of a dead process")
def test_lock_of_a_dead_process_is_free(locked_by_another_process: subprocess.Popen[str], tmp_path: Path) -> None:
    locked_by_another_process.send_signal(signal.SIGKILL)
    locked_by_another_process.wait()
    assert list(tmp_path.iterdir())  # its file is still there
    with lock(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_is_not_reentrant_and_released_by_an_error(tmp_path: Path) -> None:
    mine = f"process {os.getpid()} on "
    with pytest.raises(OutputError, match=mine), lock(tmp_path / "out"), lock(tmp_path / "out"):
        pytest.fail("was locked twice")
    with lock(tmp_path / "out"):
        pass


def test_lock_makes_the_parents_of_the_output(tmp_path: Path) -> None:
    with lock(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b").is_dir()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that may be read but not written to, even where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            folder.chmod(0o755)


@pytest.mark.fault(11, "a read-only folder, for a user that is not root")
def test_read_only_parent(unprivileged: Path) -> None:
    target = unprivileged / "out"
    check_target(target, [])
    with pytest.raises(OutputError, match="cannot be written: Permission denied"), lock(target):
        pytest.fail("was locked")
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        Workspace(target).prepare("job")
    assert os.listdir(unprivileged) == []


def test_a_place_that_cannot_be_looked_into(unprivileged: Path) -> None:
    os.seteuid(os.getuid())
    hidden = unprivileged / "hidden"
    unprivileged.chmod(0o755)
    (hidden / "out").mkdir(parents=True)
    hidden.chmod(0o000)
    if os.getuid() == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            check_target(hidden / "out", [])
    finally:
        os.seteuid(os.getuid())
        hidden.chmod(0o755)


def filled(space: Workspace, job: str) -> None:
    assert space.prepare(job) is False
    (space.content / "model.safetensors").write_bytes(b"half")
    (space.progress / "model.safetensors.json").write_text("{}")


def test_workspace_is_resumed_by_the_same_job_only(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    assert not space.holds("one")
    filled(space, "one")
    assert space.holds("one")
    assert space.size() == 4
    assert Workspace(tmp_path / "out").prepare("one") is True
    assert os.listdir(space.content) == ["model.safetensors"]
    assert space.prepare("two") is False
    assert os.listdir(space.content) == os.listdir(space.progress) == []
    assert not space.holds("one")
    assert not space.target.exists()


def test_workspace_is_beside_the_output_and_hidden(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    space.prepare("job")
    assert [path.name for path in tmp_path.iterdir()] == [".out.polysafe"]


@pytest.mark.hostile("output")
@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"null", b'"job"', b"\xff"])
def test_damaged_record_means_a_fresh_start(record: bytes, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    filled(space, "job")
    (space.work / "job.json").write_bytes(record)
    assert space.prepare("job") is False
    assert os.listdir(space.content) == []


@pytest.mark.parametrize("lost", ["content", "progress"])
def test_removal_that_was_interrupted_leaves_a_usable_workspace(lost: str, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    filled(space, "job")
    for path in (space.work / lost).iterdir():
        path.unlink()
    (space.work / lost).rmdir()
    space.prepare("job")
    assert (space.work / lost).is_dir()


def test_what_a_killed_write_left_is_not_published(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    filled(space, "job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with failing(1, KilledError), pytest.raises(KilledError):
            write_json_atomic(space.content / "config.json", {})
    assert len(os.listdir(space.content)) == 2
    assert space.prepare("job") is True
    assert os.listdir(space.content) == ["model.safetensors"]


def test_publishing(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    filled(space, "job")
    space.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"half"


def test_publishing_over_something_that_appeared(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    filled(space, "job")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("x")
    with pytest.raises(OutputError, match="not empty"):
        space.publish()
    assert os.listdir(tmp_path / "out") == ["precious"]
    assert space.holds("job")


@pytest.mark.fault(11, "full at any write, flush and rename")
@pytest.mark.parametrize("point", [1, 2])
def test_disk_full_when_publishing_leaves_nothing_at_the_target(point: int, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    filled(space, "job")
    with failing(point, disk_full), pytest.raises(OutputError, match="the disk is full"):
        space.publish()
    assert not space.target.exists()
    assert space.prepare("job") is True


def test_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        Workspace(tmp_path / "file" / "out").prepare("job")


def test_record_names_the_job(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    space.prepare("abc")
    assert json.loads((space.work / "job.json").read_text()) == {"job": "abc"}


@pytest.mark.hostile("output")
def test_a_workspace_that_is_a_link_is_refused(source: Path, tmp_path: Path) -> None:
    space = Workspace(tmp_path / "out")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "content").mkdir(parents=True)
    (elsewhere / "job.json").write_text('{"job": "one"}')
    (elsewhere / "content" / "model.safetensors").write_text("precious")
    space.work.symlink_to(elsewhere)
    for refused in (
        lambda: space.prepare("one"),
        lambda: space.prepare("two"),
        space.discard,
        lambda: check_target(space.target, [source]),
    ):
        with pytest.raises(OutputError, match="is a link; polysafe works in a folder of its own") as caught:
            refused()
        assert caught.value.where == space.work
    assert (elsewhere / "content" / "model.safetensors").read_text() == "precious"
    assert (elsewhere / "job.json").exists()


@pytest.mark.hostile("output")
def test_nothing_in_a_workspace_is_shared_with_another_place(tmp_path: Path) -> None:
    space, victim = Workspace(tmp_path / "out"), tmp_path / "victim"
    (victim / "polysafe").mkdir(parents=True)
    (victim / "file").write_text("precious")
    filled(space, "job")
    os.link(victim / "file", space.content / "hard")
    (space.content / "soft").symlink_to(victim / "file")
    (space.content / "polysafe").symlink_to(victim / "polysafe")
    os.mkfifo(space.progress / "pipe")
    assert space.prepare("job") is True
    assert os.listdir(space.content) == ["model.safetensors"]
    assert os.listdir(space.progress) == ["model.safetensors.json"]
    assert (victim / "file").read_text() == "precious"
    assert (victim / "polysafe").is_dir()


@pytest.mark.hostile("output")
@pytest.mark.parametrize("part", ["content", "progress"])
def test_a_part_of_a_workspace_that_is_a_link_is_made_anew(part: str, tmp_path: Path) -> None:
    space, victim = Workspace(tmp_path / "out"), tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    filled(space, "job")
    for path in (space.work / part).iterdir():
        path.unlink()
    (space.work / part).rmdir()
    (space.work / part).symlink_to(victim)
    space.prepare("job")
    assert not (space.work / part).is_symlink()
    assert (victim / "file").read_text() == "precious"


@pytest.mark.hostile("output")
@pytest.mark.parametrize("make", [os.link, os.symlink, lambda _, path: os.mkfifo(path), lambda _, path: path.mkdir()])
def test_a_lock_that_is_something_else_is_left_alone(make: Callable[[Path, Path], object], tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    make(tmp_path / "victim", tmp_path / ".out.polysafe.lock")
    with pytest.raises(OutputError, match="and no lock of polysafe") as caught, lock(tmp_path / "out"):
        pytest.fail("was locked")
    assert caught.value.remedy == "remove it"
    assert (tmp_path / "victim").read_text() == "precious"
