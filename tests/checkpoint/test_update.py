from __future__ import annotations

import hashlib
import json
import shutil
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


@pytest.mark.hostile("output")
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


def asking_for(output: Path, files: dict[str, str], /, **changed: object) -> None:
    """Leaves an update behind as an interrupted one would be, whose manifest has the hashes of its files."""
    content = read_manifest(output)
    entries = {entry["path"]: entry for entry in content["files"]}
    for path, text in files.items():
        entries[path] = {"path": path, "size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    manifest = json.dumps({**content, "files": list(entries.values()), **changed})
    (output / UPDATE).write_text(json.dumps({"polysafe_update": 1, "files": {**files, MANIFEST: manifest}}))


def test_an_update_that_fits_is_carried_out(output: Path) -> None:
    asking_for(output, {"README.md": "card", "polysafe/card.json": "{}"})
    assert finish_update(output)
    assert (output / "README.md").read_text() == "card"
    assert verify_output(output).ok


@pytest.mark.hostile("output")
@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({"config.json": "{}"}, {}),
        ({"modeling_evil.py": "import os"}, {}),
        ({"tokenizer.json": "{}"}, {}),
        ({"polysafe/evil.py": "import os"}, {}),
        ({"polysafe/deep/x.json": "{}"}, {}),
        ({UPDATE: "{}"}, {}),
        ({"README.md": "x"}, {"edit": "0" * 64}),
        ({"README.md": "x"}, {"files": []}),
        ({"README.md": "x"}, {"sources": {}}),
        ({"README.md": "x"}, {"polysafe_manifest": 9}),
    ],
)
def test_an_update_changes_what_is_said_of_a_model_only(
    files: dict[str, str], changed: dict[str, object], output: Path
) -> None:
    asking_for(output, files, **changed)
    before = snapshot(output)
    with pytest.raises(CheckpointError, match=r"is no valid update|is no update of this output|has schema 9") as caught:
        finish_update(output)
    assert caught.value.where == output / UPDATE
    assert snapshot(output) == before


@pytest.mark.hostile("output")
def test_an_update_without_the_hash_of_a_file_is_refused(output: Path) -> None:
    asking_for(output, {"README.md": "x"})
    (output / UPDATE).write_text((output / UPDATE).read_text().replace('"README.md": "x"', '"README.md": "y"'))
    with pytest.raises(CheckpointError, match=r"README.md does not have the hash in its manifest"):
        finish_update(output)


@pytest.mark.hostile("output")
def test_an_update_writes_through_no_link(output: Path, tmp_path: Path) -> None:
    asking_for(output, {"README.md": "x", "polysafe/card.json": "{}"})
    shutil.move(output / "polysafe", tmp_path / "elsewhere")
    (output / "polysafe").symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")
    for refused in (finish_update, lambda folder: replace_files(folder, NEW)):
        with pytest.raises(CheckpointError, match="is a link, or lies behind one"):
            refused(output)
    assert snapshot(tmp_path / "elsewhere") == before


@pytest.mark.hostile("output")
@pytest.mark.parametrize("name", ["README.md", "polysafe/card.json"])
def test_an_update_of_a_link_is_refused(name: str, output: Path, tmp_path: Path) -> None:
    asking_for(output, {name: "x"})
    (tmp_path / "victim").write_text("precious")
    (output / name).unlink()
    (output / name).symlink_to(tmp_path / "victim")
    for refused in (finish_update, lambda folder: replace_files(folder, {name: b"new"})):
        with pytest.raises(CheckpointError, match="is a link, or lies behind one") as caught:
            refused(output)
        assert caught.value.where == output / name
    assert (tmp_path / "victim").read_text() == "precious"
