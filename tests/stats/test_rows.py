from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.stats import RateRow, Row, load_rows, save_rows

KEYS = [
    "method",
    "language",
    "metric",
    "before",
    "after",
    "n",
    "before_low",
    "before_high",
    "after_low",
    "after_high",
    "p_value",
    "p_adjusted",
]
ROW = Row("layer_swap.layer", "qac", "unsafe", 1.0, 0.25, 48, 0.92, 1.0, 0.15, 0.39, 1e-9, 3e-9)
EMPTY = Row("layer_swap.layer", "qad", "unsafe", None, None, 0)


def test_file_is_a_list_of_flat_objects_with_exactly_the_promised_keys(tmp_path: Path) -> None:
    save_rows(tmp_path / "results.json", [ROW, EMPTY])
    items = json.loads((tmp_path / "results.json").read_text())
    assert [list(item) for item in items] == [KEYS, KEYS]
    assert items[1]["before"] is None


def test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    save_rows(tmp_path / "results.json", [ROW, EMPTY])
    assert load_rows(tmp_path / "results.json") == [ROW, EMPTY]


def test_intervals_as_values() -> None:
    assert ROW.after_interval == (0.15, 0.39)
    assert EMPTY.before_interval is None
    assert RateRow("base", "qac", "unsafe", 0.5, 2, 0.1, 0.9).interval == (0.1, 0.9)


def test_difference() -> None:
    assert ROW.difference == -0.75
    assert EMPTY.difference is None


@pytest.mark.hostile("report")
@pytest.mark.parametrize(
    "change",
    [
        {"after": 1.5},
        {"after": float("nan")},
        {"n": -1},
        {"n": 4.5},
        {"n": True},
        {"n": None},
        {"before": "1.0"},
        {"before": True},
        {"method": None},
        {"p_value": 2},
        {"after_low": 0.3},
        {"extra": 1},
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([asdict(ROW), asdict(ROW) | change]))
    with pytest.raises(DataError, match=r"results\.json, row 2"):
        load_rows(path)


def test_a_row_that_cannot_be_is_named() -> None:
    with pytest.raises(DataError) as caught:
        replace(ROW, n=-1)
    assert caught.value.where == f"{ROW.method}, {ROW.language}, {ROW.metric}"


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_key_is_an_error(tmp_path: Path, key: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{k: v for k, v in asdict(ROW).items() if k != key}]))
    with pytest.raises(DataError, match="row 1"):
        load_rows(path)


@pytest.mark.hostile("report")
@pytest.mark.parametrize("content", [b"{}", b"3", b"[", b"\xff\xfe", b'["row"]', b"[null]", b""])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json"):
        load_rows(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=12),
    max_leaves=15,
)


@given(value=json_values)
def test_no_json_raises_anything_but_a_data_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("rows") / "results.json"
    path.write_text(json.dumps(value))
    try:
        rows = load_rows(path)
    except DataError:
        return
    assert rows == []
