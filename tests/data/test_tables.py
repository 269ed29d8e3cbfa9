"""Tables of every kind of file: the same rows whatever they are stored as, and errors that name file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.data.tables import Table, as_text, read_lines, read_sheet, read_table
from polysafe.errors import DataError

ROWS = [{"Name": "a", "Text": 'says "x",\nthen y'}, {"Name": "b", "Text": "নমস্কার"}]


def written(folder: Path, suffix: str) -> Path:
    path = folder / f"table{suffix}"
    if suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
        from pyarrow import parquet  # type: ignore[import-untyped]

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in ROWS), encoding="utf-8")
    else:
        separator = {".csv": ",", ".tsv": "\t"}[suffix]
        text = separator.join(("a", '"says ""x"",\r\nthen y"'))
        path.write_bytes(f"Name{separator} Text \r\n{text}\r\n\r\nb{separator}নমস্কার".encode("utf-8-sig"))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_kind_of_file_holds_the_same_rows(suffix: str, tmp_path: Path) -> None:
    table = read_table(written(tmp_path, suffix))
    assert len(table) == 2
    assert table.columns == ("Name", "Text")
    assert table.texts("text") == ('says "x",\nthen y', "নমস্কার")
    assert table.find("absent", " NAME") == "Name"
    assert table.optional_texts("absent") == ("", "")


def test_a_column_that_is_not_there_is_named_beside_those_that_are() -> None:
    with pytest.raises(DataError, match="has no column 'prompt' or 'text'") as caught:
        Table(Path("t.csv"), ("id", "frage"), ()).cells("prompt", "text")
    assert caught.value.remedy == "columns: id, frage; rename the one that is meant"
    with pytest.raises(DataError) as caught:
        Table(Path("t.csv"), (), ()).texts("prompt")
    assert caught.value.remedy == "columns: none; rename the one that is meant"


def test_the_first_of_two_columns_that_differ_in_case_is_meant() -> None:
    table = Table(Path("t.csv"), ("Text", "text"), ({"Text": "upper", "text": "lower"},))
    assert table.texts("TEXT") == ("upper",)


@pytest.mark.hostile("table")
@pytest.mark.parametrize(
    ("name", "content", "problem", "where"),
    [
        ("t.csv", b"a,b\n1,2,3\n", "row 1 has more cells than the header", "t.csv"),
        ("t.csv", b"a,a\n1,2\n", "has the column 'a' twice", "t.csv"),
        ("t.csv", b'a\n"open', "is not a table", "t.csv:2"),
        ("t.csv", b"a\n\xff", "cannot be read", "t.csv"),
        ("t.jsonl", b'{"a": 1}\n\n{"a"', "is not JSON", "t.jsonl:3"),
        ("t.jsonl", b"[1]", "is not an object with named cells", "t.jsonl:1"),
        ("t.json", b'{"a": 1}', "is not a list of objects", "t.json"),
        ("t.json", b'[{"a": 1}, 2]', "is not an object with named cells", "t.json: row 2"),
        ("t.json", b"[" * 100_000, "is not JSON", "t.json"),
        ("t.jsonl", b'{"a": "x"}\n{"a": "\\uD800"}\n', "holds half a character", "t.jsonl:2"),
        ("t.json", b'[{"\\udfff": 1}]', "holds half a character", "t.json"),
        ("t.parquet", b"PAR1", "is not a Parquet file", "t.parquet"),
        ("t.txt", b"a", "is no table that can be read: .txt", "t.txt"),
        ("table", b"a", "is no table that can be read: no suffix", "table"),
    ],
)
def test_what_is_no_table_is_refused_with_its_place(
    name: str, content: bytes, problem: str, where: str, tmp_path: Path
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / name)
    assert problem in caught.value.problem
    assert str(caught.value.where) == str(tmp_path / where)


def test_a_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")


def test_short_rows_lack_cells_and_an_empty_file_lacks_columns(tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("a,b\n1\n")
    assert read_table(tmp_path / "short.csv").cells("b") == (None,)
    assert read_table(tmp_path / "short.csv").texts("b") == ("",)
    (tmp_path / "empty.csv").write_text("")
    assert read_table(tmp_path / "empty.csv").columns == ()


def test_quotation_marks_may_be_ordinary_signs(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('a\tb\n"one\ttwo"\n')
    assert read_table(tmp_path / "t.tsv", quoted=False).rows == ({"a": '"one', "b": 'two"'},)


def test_rows_of_a_sheet_keep_their_places(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    for row in (["a", 1], [None, None], [True, 2.5]):
        book.active.append(row)
    book.save(tmp_path / "s.xlsx")
    assert read_sheet(tmp_path / "s.xlsx") == (("a", "1"), ("", ""), ("", ""))
    (tmp_path / "s.csv").write_text("a,1\n\nb\n")
    assert read_sheet(tmp_path / "s.csv") == (("a", "1"), (), ("b",))
    (tmp_path / "broken.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="is not an Excel sheet"):
        read_sheet(tmp_path / "broken.xlsx")


def test_lines_end_at_line_feeds_and_carriage_returns_alone(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("\ufeffone\u2028still\r\n\r\ntwo\x0c\rthree".encode())
    assert read_lines(tmp_path / "lines.txt") == ("one\u2028still", "", "two\x0c", "three")
    (tmp_path / "lines.txt").write_text("one\n")
    assert read_lines(tmp_path / "lines.txt") == ("one",)


@pytest.mark.parametrize(
    ("value", "text"), [("a\r\nb\rc", "a\nb\nc"), (5, "5"), (True, ""), (1.5, ""), (None, ""), (["a"], "")]
)
def test_cells_as_text(value: object, text: str) -> None:
    assert as_text(value) == text
