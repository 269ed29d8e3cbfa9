from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polysafe.errors import DataError, OutputError
from polysafe.evaluate.ability import FOLDER, Ability, load_abilities


def test_it_comes_back(tmp_path: Path) -> None:
    plain = Ability("mgsm", {"en": {"0": True}})
    plain.save(tmp_path)
    Ability("belebele", {"en": {"a#1": True}}, {"shots": 0}, {"weights": "0"}, ("no jv",)).save(tmp_path)
    belebele, mgsm = load_abilities(tmp_path)
    assert mgsm == plain
    assert belebele.notes == ("no jv",)
    assert belebele.outcomes == {("en", "capability.belebele"): {"a#1": True}}
    assert load_abilities(tmp_path / "absent") == ()


@pytest.mark.hostile("record")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"polysafe": "model_run"}, "is no ability of a model"),
        ({"schema": 0}, "has schema 0, this polysafe reads schema 1"),
        ({"task": "../x"}, "task is not what it has to be"),
        ({"notes": None}, "notes is not what it has to be"),
        ({"items": {"en": {"a": 1}}}, "neither right nor wrong"),
        ({"items": {"en": []}}, "neither right nor wrong"),
    ],
)
def test_a_file_that_is_no_ability(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    Ability("mgsm", {"en": {"0": True}}).save(tmp_path)
    file = tmp_path / FOLDER / "mgsm.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | change))
    with pytest.raises(DataError, match=problem):
        Ability.load(file)
    file.write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        load_abilities(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("")
    with pytest.raises(OutputError):
        Ability("mgsm", {}).save(tmp_path)
