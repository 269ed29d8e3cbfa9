"""Parallel prompt sets: rows stay together, damage is told with its place, overlap with evaluations is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.data.anchor_sets import harmless_part, load_anchors, load_texts
from polysafe.data.anchors import Anchors, ParallelPrompts, normalised
from polysafe.errors import DataError
from tests.shared import DATA, needs_data

ROWS = [
    {"id": "a", "en": "How, do I?", "sw": "Je,\n«nini»?", "bn": "কীভাবে"},
    {"id": "b", "en": "two", "sw": "", "bn": "দুই"},
    {"id": "c", "en": "three", "sw": "tatu", "bn": "তিন"},
]
TABLE = 'id,en,sw,bn\na,"How, do I?","Je,\n«nini»?",কীভাবে\nb,two,,দুই\nc,three,tatu,তিন\n'


def load_prompts(path: Path, languages: list[str], **options: Any) -> ParallelPrompts:
    return load_anchors(path, "harmful", languages, **options).parallel


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(params=["csv", "tsv", "jsonl", "bom"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    texts = {
        "csv": TABLE,
        "bom": "\ufeff" + TABLE,
        "tsv": TABLE.replace(",", "\t").replace("How\t", "How,").replace("Je\t", "Je,"),
        "jsonl": "\n".join(json.dumps(row) for row in ROWS) + "\n\n",
    }
    suffix = {"bom": "csv"}.get(request.param, request.param)
    return write(tmp_path, f"set.{suffix}", texts[request.param])


def test_a_row_that_lacks_a_language_is_dropped_everywhere(file: Path) -> None:
    found = load_prompts(file, ["en", "sw"])
    assert found.ids == ("a", "c")
    assert found.prompts("sw") == {"a": "Je,\n«nini»?", "c": "tatu"}
    assert found.prompts("en")["a"] == "How, do I?"
    assert found.dropped == 1
    assert load_prompts(file, ["en", "bn"]).dropped == 0


def test_formats_do_not_matter_to_the_hash(tmp_path: Path) -> None:
    table = load_prompts(write(tmp_path, "a.csv", TABLE), ["en", "sw"])
    lines = load_prompts(
        write(tmp_path, "b.jsonl", "\n".join(json.dumps(row) for row in ROWS)), ["sw", "en"], id_column="id"
    )
    assert table.sha256 == lines.sha256
    assert table.sha256 != table.select([0]).sha256


def test_a_missing_key_drops_the_row(tmp_path: Path) -> None:
    lines = '{"id": 1, "en": "x", "sw": "y"}\n{"id": 2, "en": "z"}\n{"id": 3, "en": "z", "sw": null}\n'
    found = load_prompts(write(tmp_path, "a.jsonl", lines), ["en", "sw"])
    assert (found.ids, found.dropped) == (("1",), 2)


@pytest.mark.hostile("table")
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,en\na,x\n", "no harmful prompts in 'sw'"),
        ("a.csv", "", "no column 'question'"),
        ("a.csv", "id,en,sw\na,x,y\na,z,w\n", "a/a/en' is there twice"),
        ("a.csv", "id,en,sw\na,,y\nb,x,\n", "no row has"),
        ("a.csv", "id,en,sw\na,x,y,z\n", "a.csv: row 1 has more cells"),
        ("a.csv", 'id,en,sw\na,x,"y', "a.csv:2: is not a table"),
        ("a.jsonl", '{"id": "a"\n', "a.jsonl:1: is not JSON"),
        ("a.jsonl", '{"id": "a", "en": "x", "sw": "y"}\n[1]\n', "a.jsonl:2: is not an object"),
        ("a.txt", "", "no table that can be read"),
        ("a.parquet", "", "not a Parquet file"),
    ],
)
def test_damage_is_told_with_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_prompts(write(tmp_path, name, text), ["en", "sw"])


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(tmp_path / "none.csv", ["en"])
    (tmp_path / "latin.csv").write_bytes(b"id,en\na,\xff\n")
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(tmp_path / "latin.csv", ["en"])


def test_languages_must_be_parallel() -> None:
    with pytest.raises(DataError, match="1 prompts for 2 ids"):
        ParallelPrompts(("a", "b"), {"en": ("x", "y"), "sw": ("x",)})
    with pytest.raises(DataError, match="no prompts in 'de'"):
        ParallelPrompts(("a",), {"en": ("x",)}).prompts("de")


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=60), st.floats(0, 1))
def test_splitting_depends_on_the_id_alone(ids: list[int], share: float) -> None:
    def make(names: list[int]) -> ParallelPrompts:
        return ParallelPrompts(tuple(map(str, names)), {"en": tuple(f"text {name}" for name in names)})

    kept, held = make(ids).split(share)
    assert sorted((*kept.ids, *held.ids)) == sorted(map(str, ids))
    assert all(kept.prompts("en")[name] == f"text {name}" for name in kept.ids)
    fewer = make(ids[: len(ids) // 2])
    assert set(fewer.split(share)[1].ids) <= set(held.ids)
    assert not make(ids).split(0.0)[1].ids
    assert not make(ids).split(1.0)[0].ids


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I?", "how  do\ni"),
        ("Ｈow do I", "How do I"),
        ("STRASSE!", "straße"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_spelling_does_not_hide_an_overlap(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


def test_marks_and_digits_tell_prompts_apart() -> None:
    assert normalised("কি") != normalised("কী")
    assert normalised("step 1") != normalised("step 2")


def test_overlap_with_an_evaluation_is_refused_unless_forced(tmp_path: Path) -> None:
    harmful = ParallelPrompts(("h1", "h2"), {"en": ("Make it.", "Break it."), "sw": ("Fanya", "Vunja")})
    harmless = ParallelPrompts(("s1",), {"en": ("Paint it.",), "sw": ("Paka",)})
    anchors = Anchors(harmful, harmless)
    exam = load_texts(write(tmp_path, "exam.csv", "id,en,sw\n9,something,VUNJA!\n10,paint it,x\n"))
    assert anchors.require_disjoint({"other": ["nothing alike"]}) == ()
    with pytest.raises(DataError, match=r"2 anchors are among the prompts of exam: h2, s1"):
        anchors.require_disjoint({"exam": exam})
    assert anchors.require_disjoint({"exam": exam}, forced=True) == ("2 anchors are among the prompts of exam: h2, s1",)
    assert anchors.sha256 != Anchors(harmless, harmful).sha256


def test_rows_without_an_id_are_numbered(tmp_path: Path) -> None:
    found = load_prompts(write(tmp_path, "a.csv", "en,sw\nx,y\nz,w\n"), ["en", "sw"])
    assert (found.ids, found.texts["sw"]) == (("row-1", "row-2"), ("y", "w"))


def test_a_long_table_and_other_spellings(tmp_path: Path) -> None:
    long = "id,language,prompt\na,en,x\na,swh_Latn,y\nb,en,z\n"
    found = load_prompts(write(tmp_path, "a.csv", long), ["en", "swh_Latn"])
    assert (found.ids, found.texts, found.dropped) == (("a",), {"en": ("x",), "swh_Latn": ("y",)}, 1)


@needs_data
def test_anchors_of_a_set() -> None:
    rows = load_anchors("polyrefuse.train", "harmful", ["en", "th"], complete_in=["yo"], limit=30, data=DATA)
    assert len(rows.parallel) == 30
    assert rows.parallel.languages == ("en", "th")
    assert rows.parallel.ids[0] == "harmful-train-0"
    assert set(rows.prompts.languages) > {"en", "th", "yo"}
    assert harmless_part("polyrefuse.train") == "polyrefuse.harmless.train"
    harmless = load_anchors(harmless_part("polyrefuse.train"), "harmless", ["en", "th"], data=DATA)
    assert len(harmless.parallel) == 200
    with pytest.raises(DataError, match="no harmless prompts"):
        load_anchors("multijail", "harmless", ["en"], data=DATA)
    with pytest.raises(DataError, match="no harmful prompts in 'sw'"):
        load_anchors("polyrefuse.train", "harmful", ["en", "sw"], data=DATA)


def test_a_set_of_one_kind_is_no_anchors() -> None:
    for name in ("multijail.anchors", "mine.csv"):
        with pytest.raises(DataError, match="holds one kind of prompts"):
            harmless_part(name)
