from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polysafe.errors import DataError
from polysafe.findings.data import LayerUnits
from polysafe.report import ReportData
from tests.attacks.answers import ANSWERS
from tests.report.examples import change, example, hostile


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = example()
    data.save(tmp_path / "report.json")
    assert ReportData.load(tmp_path / "report.json") == data


@pytest.mark.parametrize("name", ANSWERS)
def test_any_text_comes_back(name: str) -> None:
    data = hostile(ANSWERS[name].text)
    assert ReportData.from_json(data.to_json()) == data


def test_the_same_data_gives_the_same_bytes() -> None:
    assert example().to_json() == example().to_json()


def test_a_lone_surrogate_is_written_as_valid_json() -> None:
    data = replace(example(), changes=(change(0, "\ud800"),))
    assert json.loads(data.to_json())["changes"][0]["prompt"] == "\ud800"


@pytest.mark.hostile("report")
@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"{}", b'{"schema": 99}', b'{"schema": 1}', b"\xff"])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(DataError, match=r"report\.json"):
        ReportData.load(tmp_path / "report.json")


@pytest.mark.hostile("report")
def test_a_damaged_value_is_named() -> None:
    value = json.loads(example().to_json())
    value["rows"][3]["n"] = "many"
    with pytest.raises(DataError, match=r"rows\.3\.n"):
        ReportData.from_json(json.dumps(value).encode())


@pytest.mark.hostile("report")
def test_a_row_outside_its_range_is_refused() -> None:
    value = json.loads(example().to_json())
    value["rows"][0]["after"] = 3.0
    with pytest.raises(DataError):
        ReportData.from_json(json.dumps(value).encode())


def test_a_number_that_is_not_finite_is_refused() -> None:
    unit = LayerUnits(0, "mlp", (1,), 2, (float("nan"), 1.0))
    touched = replace(example().touched[0], layers=(unit,))
    with pytest.raises(DataError, match="not finite"):
        replace(example(), touched=(touched,)).to_json()
