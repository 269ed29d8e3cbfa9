from __future__ import annotations

from pathlib import Path

import pytest

from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.update import finish_update, replace_files
from polysafe.checkpoint.verify import UPDATE, read_manifest, verify_output
from polysafe.errors import CheckpointError, OutputError
from polysafe.files.atomic import write_bytes_atomic
from tests.checkpoint.faults import KilledError, disk_full, failing
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import recipe_for
from tests.models import trio

NEW = {"README.md": "новая карточка\n".encode(), "polysafe/card.json": b"{}\n"}


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from polysafe.workflows.run import run_recipe

    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    return run_recipe(recipe_for(trio(tmp_path, layers=2).paths, tmp_path / "out")).output


def put_back(output: Path, files: dict[str, bytes]) -> None:
    for path in snapshot(output):
        (output / path).unlink()
    for path, data in files.items():
        write_bytes_atomic(output / path, data)


def test_files_and_manifest_change_together(output: Path) -> None:
    before = snapshot(output)
    edit = read_manifest(output)["edit"]
    replace_files(output, {**NEW, "polysafe/more.json": b"[]"})
    after = snapshot(output)
    assert {path for path in after if after[path] != before.get(path)} == {*NEW, "polysafe/more.json", MANIFEST}
    assert verify_output(output).ok
    assert verify_output(output).unlisted == ()
    assert read_manifest(output)["edit"] == edit
    assert not finish_update(output)


def test_killed_at_every_point_it_is_told_and_repaired(output: Path) -> None:
    before = snapshot(output)
    replace_files(output, NEW)
    wanted = snapshot(output)
    put_back(output, before)
    with failing(None, KilledError) as counter:
        replace_files(output, NEW)
    states = set()
    for point in range(1, counter.calls + 1):
        put_back(output, before)
        with failing(point, KilledError), pytest.raises(KilledError):
            replace_files(output, NEW)
        report = verify_output(output)
        interrupted = (output / UPDATE).exists()
        states.add(interrupted)
        if interrupted:
            assert "interrupted" in report.problems[0]
            assert "polysafe card" in report.problems[0]
            assert finish_update(output)
            assert snapshot(output) == wanted
        else:  # before it began, or after it was over
            assert report.ok
            assert {path: data for path, data in snapshot(output).items() if "tmp" not in path} in (before, wanted)
        replace_files(output, NEW)
        assert snapshot(output) == wanted
        assert verify_output(output).ok
    assert states == {True, False}


def test_full_disk_is_told(output: Path) -> None:
    with failing(1, disk_full), pytest.raises(OutputError, match="disk is full"):
        replace_files(output, NEW)
    assert verify_output(output).ok


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"polysafe_update": 2, "files": {}}',
        b'{"polysafe_update": 1, "files": {"../out.txt": "x"}}',
        b'{"polysafe_update": 1, "files": {"/etc/x": "x"}}',
        b'{"polysafe_update": 1, "files": {"a": 1}}',
    ],
)
def test_damaged_and_hostile_updates_are_refused(content: bytes, output: Path) -> None:
    (output / UPDATE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is no (valid )?update|is not valid JSON|has schema 2"):
        finish_update(output)
    assert not (output.parent / "out.txt").exists()
