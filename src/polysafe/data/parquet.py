"""Rows of Parquet files, counted before they are unpacked: a few kilobytes may hold one cell a million times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from polysafe.errors import DataError

_ROWS = 1 << 16
"""Rows that are unpacked at a time."""
_VALUE = 32
"""Bytes that Python takes for a value, however few of them the file takes."""


def parquet_rows(path: Path, pyarrow: ModuleType, *, most_rows: int, most_bytes: int) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file.

    Args:
        path: The file.
        pyarrow: The package.
        most_rows: Most rows.
        most_bytes: Most bytes of all cells together, every row counted.

    Raises:
        DataError: It is no such file, or holds more.
    """
    from importlib import import_module

    parquet = import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            _check_told(path, file.metadata, most_rows, most_bytes)
            repeated = [column.path for column in map(file.schema.column, range(len(file.schema))) if _is_text(column)]
        with parquet.ParquetFile(path, read_dictionary=repeated) as file:
            size = 0
            for batch in _batches(file):
                size += sum(map(_bytes, batch.columns))
                if size > most_bytes:
                    raise _too_large(path, most_bytes)
                yield from _unpacked(batch)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"is not a Parquet file: {error}", where=path) from error


def _batches(file: Any) -> Iterator[Any]:
    for group in range(file.num_row_groups):  # each for itself: pyarrow cannot join texts in lists over groups
        yield from file.iter_batches(_ROWS, row_groups=[group])


def _check_told(path: Path, metadata: Any, most_rows: int, most_bytes: int) -> None:
    if metadata.num_rows > most_rows:
        raise DataError(f"has {metadata.num_rows} rows, {most_rows} are read", where=path, remedy="split it")
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    if sum(chunk.total_uncompressed_size for chunk in chunks) > most_bytes:
        raise _too_large(path, most_bytes)
    if sum(chunk.num_values for chunk in chunks) > most_bytes // _VALUE:
        raise _too_large(path, most_bytes)


def _too_large(path: Path, most: int) -> DataError:
    return DataError(
        f"unpacks to more than {most >> 20} MiB", where=path, remedy="take fewer rows, or split it into several files"
    )


def _is_text(column: Any) -> bool:
    return column.physical_type == "BYTE_ARRAY" and column.logical_type.type in {"STRING", "NONE"}


def _bytes(array: Any) -> int:
    """Bytes that an array takes once every repetition in it is written out."""
    kind, own = str(array.type), int(array.nbytes)
    if kind.startswith("dictionary"):
        sizes: list[int] = [len(value or "") for value in array.dictionary.to_pylist()]
        places: list[int] = array.indices.drop_null().to_pylist()
        return own + sum(sizes[place] for place in places)
    if kind.startswith(("list", "large_list", "fixed_size_list")):
        return own + _bytes(array.flatten())
    if kind.startswith("map"):
        return own + _bytes(array.keys) + _bytes(array.items)
    if kind.startswith("struct"):
        return own + sum(map(_bytes, array.flatten()))
    return own + _VALUE * len(array)


def _unpacked(batch: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a batch; rows that repeat a text share it."""
    columns = [_cells(array) for array in batch.columns]
    for cells in zip(*columns, strict=True) if columns else ():
        yield dict(zip(batch.schema.names, cells, strict=True))


def _cells(array: Any) -> list[Any]:
    if not str(array.type).startswith("dictionary"):
        cells: list[Any] = array.to_pylist()
        return cells
    values = array.dictionary.to_pylist()
    return [None if place is None else values[place] for place in array.indices.to_pylist()]
