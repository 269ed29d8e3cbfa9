from __future__ import annotations

import csv
import io
from dataclasses import asdict, replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.report import ReportData
from polysafe.report.spreadsheet import save_tables, tables
from polysafe.text.cells import MAX_CELL, csv_bytes, inert
from polysafe.text.readable import clip, visible
from tests.report.examples import audit_example, change, example

DANGEROUS = tuple("=+-@\t\r\n|%＝＋－＠")
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)


def read(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))


def test_numbers_come_back_as_they_were() -> None:
    data = example()
    header, *lines = read(tables(data)["results.csv"])
    assert len(lines) == len(data.rows)
    for line, row in zip(lines, data.rows, strict=True):
        expected = asdict(row)
        found = dict(zip(header, line, strict=True))
        assert {k: v for k, v in found.items() if isinstance(expected[k], str)} == {
            k: v for k, v in expected.items() if isinstance(v, str)
        }
        assert all(float(found[k]) == v for k, v in expected.items() if isinstance(v, int | float))
        assert all(found[k] == "" for k, v in expected.items() if v is None)


def test_numbers_stand_bare_and_negative_ones_stay_numbers() -> None:
    content = csv_bytes(["a", "b", "c", "d", "e"], [{"a": -0.5, "b": 3, "c": None, "d": True, "e": "-0.5"}])
    assert content == b'"a","b","c","d","e"\r\n-0.5,3,,true,"\'-0.5"\r\n'


@pytest.mark.hostile("formula")
@pytest.mark.fault(24, "the tables")
@pytest.mark.parametrize("first", DANGEROUS, ids=ascii)
@pytest.mark.parametrize("before", ["", " ", "\N{NO-BREAK SPACE}", "\u200e", "\u200d", '"', "\ufeff"], ids=ascii)
def test_what_could_begin_a_formula_does_not(first: str, before: str) -> None:
    shown = inert(f"{before}{first}cmd|'/c calc'!A1")
    assert shown[0] not in DANGEROUS
    assert shown.lstrip(' \N{NO-BREAK SPACE}\u200d\u200e"')[:1] not in DANGEROUS


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=5))
def test_any_text_stays_in_its_cell_and_is_no_formula(records: list[tuple[str, str]]) -> None:
    content = csv_bytes(["a", "b"], [{"a": a, "b": b} for a, b in records])
    assert not content.startswith(b"\xef\xbb\xbf")
    lines = read(content)[1:]
    assert lines == [[inert(a), inert(b)] for a, b in records]
    assert not [cell for line in lines for cell in line if cell.startswith(DANGEROUS)]


@given(ANY_TEXT)
@hypothesis.example("\n=")
def test_nothing_but_apostrophes_is_added(text: str) -> None:
    assert inert(text).replace("'", "") == visible(text).replace("'", "")


def test_long_answers_are_cut_and_say_so() -> None:
    answer = "A" * 1_000_000
    assert inert(answer) == clip(answer, MAX_CELL)
    (line,) = read(tables(replace(example(), changes=(change(0, answer),)))["changes.csv"])[1:]
    assert "more characters" in line[4]


def test_every_kind_of_number_has_a_table() -> None:
    both = {*tables(example()), *tables(audit_example())}
    expected = "results audit gaps versus seeds categories audit_categories truncation judge_error corrected edits"
    more = "units overlap decisions changes change_counts"
    assert both == {f"{name}.csv" for name in f"{expected} {more}".split()}
    assert tables(ReportData(title="t", rows=(), toy=False, tiers={})) == {}


def test_gaps_are_told_apart_by_stage() -> None:
    header, *lines = read(tables(example())["gaps.csv"])
    stages = [line[header.index("stage")] for line in lines]
    assert set(stages) == {"before", "after", "unedited"}
    gap = example().gaps[0].after
    found = next(line for line in lines if line[1] == "after")
    assert float(found[header.index("difference")]) == gap.difference


def test_units_are_listed_with_their_scores() -> None:
    header, *lines = read(tables(example())["units.csv"])
    heads = [dict(zip(header, line, strict=True)) for line in lines if line[0] == "head_steering"]
    assert len(heads) == 32
    assert [h["index"] for h in heads if h["chosen"] == "true" and h["layer"] == "2"] == ["2", "5"]
    assert heads[0]["score"] == "0.0"


def test_tables_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    save_tables(example(), tmp_path)
    (tmp_path / "mine.csv").write_text("kept")
    written = save_tables(audit_example(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*written, "mine.csv"])
