"""Inputs of a result: what is recorded, where they are found, and that another byte is seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from polysafe.errors import DataError
from polysafe.organism.packaged import packaged_family
from polysafe.reproduce.finding import Severity
from polysafe.reproduce.inputs import Input, check_inputs, family_inputs, model_files, packaged_root, resolve
from tests.models import tiny_model

HASH = "a" * 64


def test_inputs_of_the_packaged_family_have_the_hashes_of_its_own_record() -> None:
    family = packaged_family()
    found = family_inputs(family.members)
    for name, entry in family.record["members"].items():
        assert found[name].packaged == name
        assert found[name].files == {file: about["sha256"] for file, about in entry["files"].items()}
    assert resolve(found, {}, Path("nowhere")) == {name: packaged_root() / name for name in found}
    assert list(check_inputs(found, resolve(found, {}, Path("nowhere")))) == []


def model(folder: Path) -> Path:
    return tiny_model("llama").save(folder)


def test_only_what_is_read_counts(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    before = set(model_files(folder))
    for name in ("README.md", "trainer_state.json", "notes.txt"):
        (folder / name).write_text("{}")
    assert set(model_files(folder)) == before


def test_every_way_in_which_an_input_differs_is_fatal_and_shows_both_hashes(tmp_path: Path) -> None:
    folder = model(tmp_path / "m")
    recorded = family_inputs({"m": folder})
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "chat_template.jinja").write_text("another template")
    (folder / "generation_config.json").unlink(missing_ok=True)
    found = {finding.what: finding for finding in check_inputs(recorded, {"m": folder})}
    assert all(finding.severity is Severity.FATAL for finding in found.values())
    bit = found["input m: model.safetensors"]
    assert bit.recorded == recorded["m"].files["model.safetensors"] != bit.found
    assert len(bit.recorded) == len(bit.found) == 64
    assert found["input m: chat_template.jinja"].recorded == "missing"


def test_a_file_may_be_called_anything_and_a_folder_may_not(tmp_path: Path) -> None:
    one, two = tmp_path / "anchors.csv", tmp_path / "other.csv"
    one.write_text("id,en\n1,a\n")
    shutil.copy(one, two)
    wanted = {"anchors.csv": Input(kind="data", files={"anchors.csv": _sha256(one)})}
    assert list(check_inputs(wanted, {"anchors.csv": two})) == []
    two.write_text("id,en\n1,b\n")
    (finding,) = check_inputs(wanted, {"anchors.csv": two})
    assert finding.severity is Severity.FATAL


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_input_is_where_the_user_says_or_beside_the_record(tmp_path: Path) -> None:
    wanted = {"m": Input(kind="model", files={}), "f": Input(kind="data", files={})}
    with pytest.raises(DataError, match="nobody says where the model 'm' is") as caught:
        resolve(wanted, {}, tmp_path)
    assert "--source m=FOLDER" in str(caught.value)
    (tmp_path / "sources/m").mkdir(parents=True)
    (tmp_path / "sources/f").touch()
    assert resolve(wanted, {}, tmp_path) == {"m": tmp_path / "sources/m", "f": tmp_path / "sources/f"}
    assert resolve(wanted, {"m": tmp_path / "x"}, tmp_path)["m"] == tmp_path / "x"
    with pytest.raises(DataError, match="no input 'n'"):
        resolve(wanted, {"n": tmp_path}, tmp_path)


def test_a_hub_model_is_asked_for_at_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot(repository: str, revision: str) -> Path:
        asked.append((repository, revision))
        return tmp_path

    monkeypatch.setattr("polysafe.reproduce.inputs.hub_snapshot", snapshot)
    wanted = {"m": Input(kind="model", hub="org/name", revision="b" * 40, files={})}
    assert resolve(wanted, {}, tmp_path) == {"m": tmp_path}
    assert asked == [("org/name", "b" * 40)]
