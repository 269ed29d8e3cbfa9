"""Tables in files: CSV, TSV, JSON, JSON Lines and Parquet with named columns, and sheets without any.

Byte order marks are taken off, line ends inside a cell become line feeds, and column names are compared without case.
An empty line of a table without column names keeps its place, because other languages are aligned by row number.

Files are somebody else's: how much of one is taken into memory is bounded where it is read.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from stat import S_ISREG
from types import ModuleType
from typing import Any, TextIO, TypeVar
from zipfile import BadZipFile, ZipFile

from polysafe.data.parquet import parquet_rows
from polysafe.errors import DataError
from polysafe.extras import install_line

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
"""Files that `read_table` reads."""

MAX_ROWS = 2_000_000
"""Most rows of a file."""
MAX_BYTES = 512 << 20
"""Most bytes of a file that is read row by row, and of what a packed one unpacks to."""
MAX_WHOLE = 64 << 20
"""Most bytes of a JSON file, which is parsed at once."""

_SHARED = 10_000
"""Different short texts that are kept once, however many rows have them: names of columns, languages, categories."""
_DELIMITERS = {".csv": ",", ".tsv": "\t"}

_SURROGATE = re.compile(r"\\u[dD]")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Table:
    """Rows with named columns.

    Attributes:
        path: The file.
        columns: Column names as found.
        rows: Rows; keys are the column names as found.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _by_folded_name(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for column in self.columns:
            found.setdefault(_folded(column), column)
        return found

    def find(self, *names: str) -> str | None:
        """The first of these columns that is there, as it is spelled in the file."""
        return next(
            (self._by_folded_name[_folded(name)] for name in names if _folded(name) in self._by_folded_name), None
        )

    def cells(self, *names: str) -> tuple[Any, ...]:
        """The values of the first of these columns that is there.

        Raises:
            DataError: None is there; the message lists the columns found.
        """
        column = self.find(*names)
        if column is None:
            raise DataError(
                f"has no column {' or '.join(map(repr, names))}",
                where=self.path,
                remedy=f"columns: {', '.join(self.columns) or 'none'}; rename the one that is meant",
            )
        return tuple(row.get(column) for row in self.rows)

    def texts(self, *names: str) -> tuple[str, ...]:
        """The same, as text; what is no text is empty.

        Raises:
            DataError: None is there.
        """
        return tuple(map(as_text, self.cells(*names)))

    def optional_texts(self, *names: str) -> tuple[str, ...]:
        """The same, all empty where none of the columns is there."""
        return self.texts(*names) if self.find(*names) else ("",) * len(self)


def read_table(path: Path, *, quoted: bool = True) -> Table:
    """Reads a file with named columns; the suffix tells its kind.

    Args:
        path: The file, in UTF-8 where it is text.
        quoted: Whether quotation marks in CSV and TSV enclose cells; otherwise they are ordinary signs.

    Raises:
        DataError: It cannot be read, is damaged, or its kind is none of `SUFFIXES`.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        _check_file(path, MAX_BYTES)
        pyarrow = _needed("pyarrow", path)
        rows = list(parquet_rows(path, pyarrow, most_rows=MAX_ROWS, most_bytes=MAX_BYTES))
    elif kind in {".jsonl", ".json"}:
        lines = kind == ".jsonl"
        rows = _with_text(path, _json_lines if lines else _json_list, MAX_BYTES if lines else MAX_WHOLE)
    elif kind in _DELIMITERS:
        return _with_text(path, lambda place, file: _headed(place, file, _DELIMITERS[kind], quoted))
    else:
        raise DataError(
            f"is no table that can be read: {kind or 'no suffix'}", where=path, remedy=f"use {', '.join(SUFFIXES)}"
        )
    return Table(path, tuple(dict.fromkeys(name for row in rows for name in row)), tuple(rows))


def read_sheet(path: Path, *, quoted: bool = True) -> tuple[tuple[str, ...], ...]:
    """Reads a `.csv`, `.tsv` or `.xlsx` file without column names; an empty line is an empty row.

    Raises:
        DataError: It cannot be read or is damaged.
    """
    if path.suffix.lower() == ".xlsx":
        return _excel_rows(path)
    delimiter = _DELIMITERS.get(path.suffix.lower(), ",")
    return _with_text(path, lambda place, file: tuple(_cells(place, file, delimiter, quoted)))


def read_lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file; line feeds and carriage returns end one, other signs do not.

    Raises:
        DataError: It cannot be read.
    """
    return _with_text(path, lambda _, file: tuple(_counted(path, _universal(file))))


def as_text(value: object) -> str:
    """A cell as text, line ends as line feeds; numbers as they are written, everything else is empty."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).replace("\r\n", "\n").replace("\r", "\n")


def _folded(name: str) -> str:
    return name.strip().casefold()


def _with_text(path: Path, read: Callable[[Path, TextIO], Result], most: int = MAX_BYTES) -> Result:
    _check_file(path, most)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return read(path, file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error


def _check_file(path: Path, most: int) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if not S_ISREG(status.st_mode):
        raise DataError("is no file", where=path)
    if status.st_size > most:
        raise DataError(
            f"is larger than {most >> 20} MiB",
            where=path,
            remedy="take fewer rows, or split it into several files"
            + ("; JSON Lines may be larger than JSON" if path.suffix.lower() == ".json" else ""),
        )


def _counted(path: Path, rows: Iterable[Result]) -> Iterator[Result]:
    for number, row in enumerate(rows):
        if number == MAX_ROWS:
            raise DataError(f"has more than {MAX_ROWS} rows", where=path, remedy="split it into several files")
        yield row


def _universal(file: TextIO) -> Iterator[str]:
    # Not splitlines(): sentences hold U+2028, form feeds and other signs at which it would cut.
    for line in file:  # opened with newline="", so that line feeds and carriage returns end lines and are kept
        yield line[:-2] if line.endswith("\r\n") else line[:-1] if line.endswith(("\n", "\r")) else line


def _cells(path: Path, file: TextIO, delimiter: str, quoted: bool) -> Iterator[tuple[str, ...]]:
    reader = (
        csv.reader(file, delimiter=delimiter, strict=True)
        if quoted
        else csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    )
    shared: dict[str, str] = {}
    try:
        for row in _counted(path, reader):
            yield tuple(_kept(as_text(cell), shared) for cell in row)
    except csv.Error as error:
        raise DataError(f"is not a table: {error}", where=f"{path}:{reader.line_num}") from error


def _kept(cell: str, shared: dict[str, str]) -> str:
    """The cell, as the same text in another row where that is short."""
    if len(cell) > 32:
        return cell
    return shared.get(cell, cell) if len(shared) == _SHARED else shared.setdefault(cell, cell)


def _headed(path: Path, file: TextIO, delimiter: str, quoted: bool) -> Table:
    lines = _cells(path, file, _found(file, delimiter), quoted)
    columns = tuple(name.strip() for name in next(lines, ()))
    if twice := next((name for name, count in Counter(columns).items() if count > 1), None):
        raise DataError(f"has the column {twice!r} twice", where=path)
    rows = []
    for number, line in enumerate(lines, start=1):
        if len(line) > len(columns):
            raise DataError(f"row {number} has more cells than the header", where=path)
        if line:
            rows.append(dict(zip(columns, line, strict=False)))
    return Table(path, columns, tuple(rows))


def _found(file: TextIO, delimiter: str) -> str:
    """The delimiter of a table: where the comma is a decimal mark, spreadsheets write semicolons into `.csv`."""
    header = file.readline()
    file.seek(0)
    return next((each for each in (delimiter, ";", "\t") if each in header), delimiter)


def _json_lines(path: Path, file: TextIO) -> list[Mapping[str, Any]]:
    numbered = enumerate(_counted(path, _universal(file)), start=1)
    shared: dict[str, str] = {}
    return [
        {
            _kept(name, shared): _kept(cell, shared) if isinstance(cell, str) else cell
            for name, cell in _object(_json(line, f"{path}:{number}"), f"{path}:{number}").items()
        }
        for number, line in numbered
        if line.strip()
    ]


def _json_list(path: Path, file: TextIO) -> list[Mapping[str, Any]]:
    content = _json(file.read(), str(path))
    if not isinstance(content, list):
        raise DataError("is not a list of objects", where=path)
    return [_object(row, f"{path}: row {number}") for number, row in enumerate(_counted(path, content), start=1)]


def _json(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):  # half a character, which no model can read and no file hold as UTF-8
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"holds half a character, \\u{ord(error.object[error.start]):04x}",
            where=where,
            remedy="write the whole character, or take it out; a broken export leaves such halves behind",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}", where=where) from error
    return value


def _object(row: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise DataError("is not an object with named cells", where=where)
    return row


def _excel_rows(path: Path) -> tuple[tuple[str, ...], ...]:
    openpyxl = _needed("openpyxl", path)
    _check_file(path, MAX_BYTES)
    try:
        with ZipFile(path) as packed:
            if sum(member.file_size for member in packed.infolist()) > MAX_BYTES:
                raise DataError(f"unpacks to more than {MAX_BYTES >> 20} MiB", where=path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            rows: Iterable[tuple[Any, ...]] = book.worksheets[0].iter_rows(values_only=True)
            return tuple(tuple(map(as_text, row)) for row in _counted_cells(path, rows))
        finally:
            book.close()
    except (OSError, ValueError, KeyError, IndexError, BadZipFile) as error:
        raise DataError(f"is not an Excel sheet: {error}", where=path) from error


def _counted_cells(path: Path, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """A sheet may name one cell in its last column and row; all before it would be given, empty."""
    cells = 0
    for row in _counted(path, rows):
        cells += len(row)
        if cells > 8 * MAX_ROWS:
            raise DataError(f"has more than {8 * MAX_ROWS} cells", where=path, remedy="split it into several files")
        yield row


def _needed(module: str, path: Path) -> ModuleType:
    package = module.split(".", maxsplit=1)[0]
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"needs the package {package} to be read", where=path, remedy=install_line(package)) from error
