"""How much of a table is taken into memory is bounded where it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from polysafe.data import tables
from polysafe.data.tables import read_lines, read_sheet, read_table
from polysafe.errors import DataError
from tests.checkpoint.test_header import peak_memory

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
from pyarrow import parquet  # type: ignore[import-untyped]  # noqa: E402


def repeated(kind: str, count: int) -> object:
    """A column that holds one value very often."""
    places = pyarrow.array([0] * count, pyarrow.int32())
    if kind == "text":
        return pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(["x" * 100_000]))
    if kind == "list":
        words = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(["x" * 100_000])).dictionary_decode()
        return pyarrow.ListArray.from_arrays(list(range(count + 1)), words)
    return pyarrow.ListArray.from_arrays([0, *[count * 2000] * count], pyarrow.array([7] * (2000 * count)))


@pytest.mark.hostile("table")
@pytest.mark.parametrize(("kind", "count"), [("text", 10_000), ("list", 9_000), ("numbers", 10_000)])
def test_a_parquet_file_of_one_repeated_value_is_refused_before_it_is_unpacked(
    tmp_path: Path, kind: str, count: int
) -> None:
    path = tmp_path / "bomb.parquet"
    parquet.write_table(pyarrow.table({"text": repeated(kind, count)}), path)
    assert path.stat().st_size < 1 << 20
    with peak_memory() as peak, pytest.raises(DataError, match="unpacks to more than 512 MiB"):
        read_table(path)
    assert peak[0] < 100 << 20


def test_a_text_that_rows_repeat_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {
        "text": ["x" * 10_000, None] * 2_000,
        "choices": [["a", "b"], []] * 2_000,
        "meta": [{"k": "v"}, None] * 2_000,
        "n": list(range(4_000)),
    }
    parquet.write_table(pyarrow.table(columns), path, row_group_size=900)
    with peak_memory() as peak:
        table = read_table(path)
    assert peak[0] < 20 << 20
    assert table.rows == tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


WRITERS: dict[str, Callable[[int], str]] = {
    ".csv": lambda count: "text,language\n" + "a,sw\n" * count,
    ".tsv": lambda count: "text\tlanguage\n" + "a\tsw\n" * count,
    ".jsonl": lambda count: '{"text": "a"}\n' * count,
    ".json": lambda count: json.dumps([{"text": "a"}] * count),
}


@pytest.mark.hostile("table")
@pytest.mark.parametrize("suffix", WRITERS)
def test_more_rows_than_are_read_are_refused(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 50)
    path = tmp_path / f"t{suffix}"
    path.write_text(WRITERS[suffix](49), encoding="utf-8")
    assert len(read_table(path)) == 49
    path.write_text(WRITERS[suffix](51), encoding="utf-8")
    with pytest.raises(DataError, match="has more than 50 rows"):
        read_table(path)


def test_more_lines_than_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 50)
    (tmp_path / "t.txt").write_text("\n" * 51)
    with pytest.raises(DataError, match="has more than 50 rows"):
        read_lines(tmp_path / "t.txt")


@pytest.mark.hostile("table")
@pytest.mark.parametrize("suffix", [*WRITERS, ".parquet", ".xlsx"])
def test_files_of_absurd_size_or_without_an_end_are_not_read(suffix: str, tmp_path: Path) -> None:
    read = read_sheet if suffix == ".xlsx" else read_table
    path = tmp_path / f"t{suffix}"
    path.touch()
    os.truncate(path, 2**36)
    with pytest.raises(DataError, match=r"is larger than (512|64) MiB"):
        read(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="is no file"):
        read(path)


@pytest.mark.hostile("table")
def test_a_sheet_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    with (
        ZipFile(tmp_path / "s.xlsx", "w", ZIP_DEFLATED, compresslevel=1) as packed,
        packed.open("xl/worksheets/sheet1.xml", "w") as sheet,
    ):
        for _ in range(9):
            sheet.write(bytes(1 << 26))
    with pytest.raises(DataError, match="unpacks to more than 512 MiB"):
        read_sheet(tmp_path / "s.xlsx")


@pytest.mark.hostile("table")
def test_a_sheet_with_one_cell_in_its_last_corner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    book.active.cell(500, 500, "x")
    book.save(tmp_path / "s.xlsx")
    monkeypatch.setattr(tables, "MAX_ROWS", 1000)
    with pytest.raises(DataError, match="has more than 8000 cells"):
        read_sheet(tmp_path / "s.xlsx")


@pytest.mark.fault(19, "half-written lines")
@pytest.mark.hostile("table")
@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_half_written_line_is_named_with_its_number(tmp_path: Path, cut: int) -> None:
    whole = '{"text": "what is ሰላም?", "language": "am"}\n'.encode()
    (tmp_path / "t.jsonl").write_bytes(whole * 3 + whole[:cut])
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.jsonl")
    assert caught.value.problem.startswith(("is not JSON", "cannot be read"))
    assert str(tmp_path / "t.jsonl") in str(caught.value.where)


@pytest.mark.hostile("table")
def test_half_a_character_is_refused_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n{"text": "\\ud800"}\n')
    with pytest.raises(DataError, match="holds half a character") as caught:
        read_table(tmp_path / "t.jsonl")
    assert str(caught.value.where).endswith("t.jsonl:2")
    (tmp_path / "t.jsonl").write_text('{"text": "\\ud83d\\ude00"}\n')
    assert read_table(tmp_path / "t.jsonl").texts("text") == ("😀",)


@pytest.mark.hostile("table")
def test_a_header_of_very_many_columns_is_read_in_time(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(",".join(f"c{number}" for number in range(50_000)) + "\n")
    assert len(read_table(tmp_path / "t.csv").columns) == 50_000
