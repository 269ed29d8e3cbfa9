"""Hostile answers in the tables beside a report: a spreadsheet reads them as text, whichever separator it assumes."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator

import pytest

from polysafe.report.spreadsheet import tables
from polysafe.text.cells import MAX_CELL
from tests.attacks.answers import ANSWERS
from tests.report.examples import hostile

FORMULA = re.compile(r"""[\s"'\u200b-\u200f\ufeff]*[=+\-@|%\uff1d\uff0b\uff0d\uff20\u2212]""")
"""The start of what some spreadsheet calculates, behind what one or another trims."""


def parse(content: bytes, separator: str) -> list[list[str]]:
    text = content.decode("utf-8")
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=separator == ","))


def is_number(cell: str) -> bool:
    try:
        return isinstance(json.loads(cell), int | float)
    except ValueError:
        return False


def calculated(rows: list[list[str]]) -> list[str]:
    """Cells that a spreadsheet could calculate. An apostrophe in front is what tells it not to."""
    return [cell for row in rows for cell in row
            if FORMULA.match(cell) and not cell.startswith("'") and not is_number(cell)]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def long_fields() -> Iterator[None]:
    """Read with another separator, a whole line is one cell."""
    before = csv.field_size_limit(10_000_000)
    yield
    csv.field_size_limit(before)


@pytest.fixture(scope="module")
def harmless() -> dict[str, list[list[str]]]:
    return {file: parse(content, ",") for file, content in tables(hostile("harmless words")).items()}


@pytest.mark.fault(24, "the tables")
@pytest.mark.hostile("answer", cases="answers")
@pytest.mark.parametrize("name", ANSWERS)
def test_is_text_in_every_table(name: str, harmless: dict[str, list[list[str]]]) -> None:
    found = tables(hostile(ANSWERS[name].text))
    assert found.keys() == harmless.keys()
    for file, content in found.items():
        rows = parse(content, ",")
        assert [len(row) for row in rows] == [len(row) for row in harmless[file]]
        assert rows[0] == harmless[file][0]
        assert max(len(cell) for row in rows for cell in row) < MAX_CELL + 100
        assert not [cell for row in rows for cell in row if cell[:1] in ("\t", "\r", "\n")]
        for separator in (",", ";", "\t"):
            assert calculated(parse(content, separator)) == []
        text = content.decode("utf-8")
        assert not [c for c in set(text) - set("\r\n\t") if unicodedata.category(c) in {"Cc", "Cs"}]


def test_the_check_above_can_fail() -> None:
    careless = io.StringIO()
    csv.writer(careless).writerows([[case.text] for name, case in ANSWERS.items() if name.startswith("csv: ")])
    assert len(calculated(parse(careless.getvalue().encode(), ","))) >= 9
    assert len(calculated(parse(b'"x","a;=1+1;b"\r\n', ";"))) == 1


def test_text_is_kept_but_for_what_makes_it_inert() -> None:
    rows = parse(tables(hostile("plain text"))["changes.csv"], ",")
    assert rows[1] == ["plain text"] * 9
    rows = parse(tables(hostile("=1+1"))["changes.csv"], ",")
    assert rows[1] == ["'=1+1"] * 9
