"""Tasks from files and from raw pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.data.tasks import Example, load_task, make_task
from polysafe.errors import DataError

PAIRS = [{"input": "moja", "output": "mbili"}, {"input": "mbili", "output": "tatu"}, {"input": "tatu", "output": ""}]
EXPECTED = (Example("moja", "mbili"), Example("mbili", "tatu"))


def write(path: Path, kind: str) -> Path:
    file = path / f"task{kind}"
    if kind == ".json":
        text = json.dumps(PAIRS)
    elif kind == ".jsonl":
        text = "\n".join(map(json.dumps, PAIRS)) + "\n\n"
    else:
        sign = "," if kind == ".csv" else "\t"
        text = "\ufeff" + "\n".join(sign.join(row) for row in [list(PAIRS[0]), *(list(p.values()) for p in PAIRS)])
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", [".json", ".jsonl", ".csv", ".tsv"])
def test_every_layout_gives_the_same_task(tmp_path: Path, kind: str) -> None:
    task = load_task(write(tmp_path, kind), "next", "sw")
    assert task.examples == EXPECTED
    assert task.dropped == (("empty", 1),)
    assert task.answers == ("mbili", "tatu")


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\nx,y\n")
    assert load_task(file, "t", "sw", input_column="a", output_column="b").examples == (Example("x", "y"),)


def test_what_does_not_make_an_example_is_counted() -> None:
    pairs = [("a", "x"), ("a", "x"), ("b", "x"), ("b", "y"), (" ", "x"), ("e\u0301", "z")]
    task = make_task("t", "sw", pairs)
    assert task.examples == (Example("a", "x"), Example("é", "z"))
    assert dict(task.dropped) == {"empty": 1, "repeated": 1, "several outputs": 1}
    assert task.sha256 == make_task("t", "sw", [("a", "x"), ("é", "z")]).sha256


@pytest.mark.hostile("table")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "{", "is not JSON"),
        ("t.json", "{}", "not a list"),
        ("t.json", '[{"input": "a"}]', "no column 'output'"),
        ("t.jsonl", '{"input": "a", "output": "b"}\n[]\n', r":2.*is not an object"),
        ("t.csv", "input\na\n", "no column 'output'"),
        ("t.csv", "input,output\n,\n", "no usable pair"),
        ("t.txt", "a b", "is no table that can be read"),
    ],
)
def test_files_that_hold_no_task(tmp_path: Path, name: str, text: str, message: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load_task(file, "t", "sw")
    assert name in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_task(tmp_path / "none.json", "t", "sw")
