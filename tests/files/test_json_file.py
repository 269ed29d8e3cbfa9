"""One reader for every JSON file of ours: what it takes, and in which words it refuses the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polysafe.errors import CheckpointError, DataError
from polysafe.files.json_file import Format, parse_json, parse_line, read_json, remembered

RUN = Format(
    "run of one model",
    "model_run",
    version=2,
    absent="there is no run here",
    find="name its folder",
    again="make {folder} again",
    largest=300,
)
EDIT = Format("edit file", key="polysafe_edit", error=CheckpointError)


class Shape(BaseModel):
    size: int


def written(folder: Path, content: object) -> Path:
    path = folder / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_what_a_format_writes_it_reads(tmp_path: Path) -> None:
    assert RUN.head == {"polysafe": "model_run", "schema": 2}
    content = RUN.read(written(tmp_path, {**RUN.head, "size": 3}))
    assert content == {"polysafe": "model_run", "schema": 2, "size": 3}
    assert RUN.built(dict, content, tmp_path) == {"size": 3}
    assert EDIT.head == {"polysafe_edit": 1}
    assert EDIT.built(dict, EDIT.read(written(tmp_path, {"size": 3, **EDIT.head})), tmp_path) == {"size": 3}


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    ("content", "problem", "remedy"),
    [
        (b"", "is not valid JSON: ", "make"),
        (b"{", "is not valid JSON: ", "make"),
        (b'{"schema": 2, "schema": 2}', "is not valid JSON: a key stands in it twice", "make"),
        (b"[" * 250, "is not valid JSON: ", "make"),
        (b'"\xff"', "is not valid JSON: ", "make"),
        (b'{"a": "\\ud800"}', "is not valid JSON: ", "make"),
        (b" " * 301, "is larger than 300 bytes", "make"),
        ([], "is no run of one model", "name its folder"),
        ({}, "is no run of one model", "name its folder"),
        ({"polysafe": "model_run"}, "is no run of one model", "name its folder"),
        ({"polysafe": "ability", "schema": 2}, "is no run of one model", "name its folder"),
        ({"schema": 2}, "is no run of one model", "name its folder"),
        ({**RUN.head, "schema": 3}, "has schema 3, this polysafe reads schema 2", "make"),
        ({**RUN.head, "schema": "2"}, "has schema '2', this polysafe reads schema 2", "make"),
        ({**RUN.head, "schema": True}, "has schema True, this polysafe reads schema 2", "make"),
    ],
)
def test_what_is_no_such_file_is_refused_with_place_and_remedy(
    content: Any, problem: str, remedy: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError) as caught:
        RUN.read(path)
    assert problem in caught.value.problem
    assert caught.value.where == path
    assert (remedy or "") in str(caught.value.remedy)


def test_an_endless_nesting_is_no_json() -> None:
    with pytest.raises(ValueError, match=r"recursion|nest|Stack"):
        parse_json(b"[" * 1_000_000)


def test_the_remedy_names_the_version_that_wrote_it_and_nothing_that_a_shell_would_run(tmp_path: Path) -> None:
    record = Format("record", "record", again="pip install 'polysafe=={version}', and make {folder} again")
    path = written(tmp_path, {**record.head, "schema": 2, "version": "0.3.1'; rm {0}"})
    with pytest.raises(DataError) as caught:
        record.read(path)
    assert caught.value.remedy == f"pip install 'polysafe==0.3.1rm0', and make {tmp_path} again"
    with pytest.raises(DataError) as damaged:
        record.read(written(tmp_path, b"{"))
    assert damaged.value.remedy is None
    with pytest.raises(CheckpointError) as other:
        EDIT.read(written(tmp_path, {"polysafe_edit": 7}))
    assert other.value.remedy == "use the polysafe that wrote it"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        RUN.read(tmp_path / "absent" / "run.json")
    assert (caught.value.problem, caught.value.where) == ("there is no run here", tmp_path / "absent")
    assert caught.value.remedy == "name its folder"
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        EDIT.read(tmp_path / "edit.json")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        EDIT.read(tmp_path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_json(tmp_path / "rows.json")
    with pytest.raises(DataError, match="is not valid JSON"):
        read_json(written(tmp_path, b"nothing"))


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Shape.model_validate, "is no valid run of one model: size: Input should be a valid integer"),
        (lambda content: content["count"], "is no valid run of one model: lacks 'count'"),
        (lambda content: int(content["size"]), "is no valid run of one model: invalid literal"),
        (lambda content: content["size"].values(), "is no valid run of one model: 'str' object has no attribute"),
        (lambda content: content["size"] + 1, "is no valid run of one model: can only concatenate"),
    ],
)
def test_a_wrong_shape_is_named(build: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        RUN.built(build, {"size": "three"}, tmp_path / "run.json")
    assert words in caught.value.problem
    assert "make" in str(caught.value.remedy)


def test_half_a_character_is_read_where_others_wrote_it(tmp_path: Path) -> None:
    card = Format("card", half_characters=True)
    assert card.read(written(tmp_path, {**card.head, "said": "\ud800"})) == {"schema": 1, "said": "\ud800"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3"])
def test_a_record_that_cannot_be_read_is_as_if_it_were_not_there(content: bytes, tmp_path: Path) -> None:
    assert remembered(written(tmp_path, content)) == {}
    assert remembered(tmp_path / "absent") == {}
    assert remembered(written(tmp_path, {"job": 1})) == {"job": 1}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything may be read here")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, RUN.head)
    path.chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        RUN.read(path)


@pytest.mark.hostile("record")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_of_our_files_are_finite(number: str, tmp_path: Path) -> None:
    path = written(tmp_path, f'{{"schema": 1, "deep": [[{{"x": [1.5, {number}]}}]]}}'.encode())
    with pytest.raises(DataError, match=r"is not valid JSON: .* is no number") as caught:
        Format("card").read(path)
    assert caught.value.where == path
    read_json(path)  # what others write may hold them: configs in the wild do


@pytest.mark.hostile("record")
def test_integers_that_no_float_holds_are_in_no_file(tmp_path: Path) -> None:
    """Whoever computes with one, or asks whether it is finite, has an `OverflowError`."""
    most, beyond = -(10**298), 10**400
    assert parse_line(f"[{most}]") == parse_json(f"[{most}]".encode()) == [most]
    for read in (parse_line, parse_json):
        with pytest.raises(ValueError, match="has 401 digits"):
            read(f"[{beyond}]".encode())
    with pytest.raises(DataError, match="is not valid JSON"):
        read_json(written(tmp_path, f'{{"a": {beyond}}}'.encode()))


@pytest.mark.hostile("record")
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_before_it_is_walked(opening: str, closing: str) -> None:
    assert parse_json((99 * opening + "1" + 99 * closing).encode())
    for depth in (100, 250):
        with pytest.raises(ValueError, match="nested deeper than 100 levels"):
            parse_json((depth * opening + "1" + depth * closing).encode())


@pytest.mark.hostile("record")
def test_files_that_never_end_and_files_of_gigabytes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(30 << 30)
    for path, words in ((tmp_path / "pipe", "a pipe or a device"), (tmp_path / "sparse", "larger than")):
        with pytest.raises(DataError, match=words):
            Format("card").read(path)
        with pytest.raises(DataError, match=words):
            read_json(path)
        assert remembered(path) == {}
