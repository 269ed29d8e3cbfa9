"""Prompts from any table, and XThreatBench, whose columns nobody has published.

One table holds a row per prompt and language, or a column per language; several files hold a language each. Where the
usual names do not fit, the user says which columns mean what; a column that is missing is met with those there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from polysafe.data.languages import code_of, is_language, language
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.data.sets.base import Benchmark, Request, category_of, collect, content_id
from polysafe.data.tables import SUFFIXES, Table, read_table
from polysafe.errors import DataError

FIELDS = ("text", "language", "category", "id")
"""What a column can be."""

_USUAL: Mapping[str, tuple[str, ...]] = {
    "text": ("question", "prompt", "text", "instruction"),
    "language": ("language", "lang"),
    "category": ("category", "type"),
    "id": ("id",),
}


def load_table(
    path: Path,
    name: str,
    *,
    kind: Kind = "harmful",
    columns: Mapping[str, str] | None = None,
    spoken: str | None = None,
    licence: str = "",
    wide: Collection[str] = (),
) -> PromptSet:
    """Prompts of a CSV, TSV, JSON, JSON Lines or Parquet file.

    Args:
        path: The file, or a folder with a file per language, each named after its language.
        name: Name of the set.
        kind: Whether its prompts should be refused.
        columns: Field (`text`, `language`, `category`, `id`) -> column, where the usual names do not fit. A column per
            language is found by itself where no column is the text.
        spoken: Language of a table that does not say; by default that of its name: `sw.csv`, `mine_sw.csv`.
        licence: Licence of the prompts.
        wide: Columns that hold a language each; a name that is no known language is its own code.

    Raises:
        DataError: A column is not there, a language is not known or not said, or there is no prompt.
    """
    mapping = _checked(columns or {}, path)
    prompts = _of_tables(name, kind, _tables(path), mapping, spoken or _last_word(path), wide)
    return collect(name, prompts, licence=licence, origin=str(path))


def _checked(columns: Mapping[str, str], where: object) -> Mapping[str, str]:
    if unknown := sorted(set(columns) - set(FIELDS)):
        raise DataError(
            f"{unknown[0]!r} is nothing that a column can be", where=where, remedy=f"use {', '.join(FIELDS)}"
        )
    return columns


def _tables(path: Path) -> dict[str | None, Table]:
    """Language that a file is named after, None for a file that says itself -> its table."""
    if not path.is_dir():
        return {None: read_table(path)}
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    named = {language(word).code: file for file in files if (word := _language_of(file)) is not None}
    if named:
        return {code: read_table(file) for code, file in named.items()}
    if len(files) != 1:
        raise DataError(
            f"has {len(files)} tables, none of which is named after a language",
            where=path,
            remedy="name one file, or the files after their languages: sw.csv, bn.csv, …",
        )
    return {None: read_table(files[0])}


def _language_of(file: Path) -> str | None:
    words = file.stem.replace("-", "_").split("_")
    return next((word for word in (file.stem, words[-1], words[0], file.parent.name) if is_language(word)), None)


def _last_word(file: Path) -> str | None:
    """The language at the end of a file's name; `my_prompts.csv` is no Burmese."""
    word = file.stem.replace("-", "_").rpartition("_")[2]
    return next((spelling for spelling in (file.stem, word) if is_language(spelling)), None)


def _of_tables(
    name: str,
    kind: Kind,
    tables: Mapping[str | None, Table],
    columns: Mapping[str, str],
    spoken: str | None,
    wide: Collection[str] = (),
) -> Iterator[Prompt]:
    rows = [row for code, table in tables.items() for row in _rows(table, columns, code or spoken, wide)]
    counts = Counter(code for code, *_ in rows)
    aligned = len(set(counts.values())) == 1
    seen: Counter[str] = Counter()
    for code, text, category, given in rows:
        seen[code] += 1
        number = f"row-{seen[code]}" if aligned else content_id(text)
        yield Prompt(name, given or number, code, text, kind, category)


Row = tuple[str, str, str | None, str]
"""Language, text, category, id (empty where there is none)."""


def _rows(table: Table, columns: Mapping[str, str], spoken: str | None, named: Collection[str] = ()) -> Iterator[Row]:
    text = _column(table, columns, "text")
    wide = _language_columns(table, columns, named, text)
    if not (text or wide):
        table.cells(*_USUAL["text"])  # raises, with the columns that are there
    ids, categories = (_optional(table, columns, field) for field in ("id", "category"))
    if wide:
        for column in wide:
            code = code_of(column)
            cells = zip(table.texts(column), categories, ids, strict=True)
            yield from ((code, cell, category_of(category), name) for cell, category, name in cells)
        return
    assert text is not None
    languages = _languages(table, columns, spoken)
    for code, cell, category, name in zip(languages, table.texts(text), categories, ids, strict=True):
        yield code, cell, category_of(category), name


def _language_columns(table: Table, columns: Mapping[str, str], named: Collection[str], text: str | None) -> list[str]:
    """Columns that hold a language each: those that are named, or where there is no text all that are languages."""
    found = [column for name in named if (column := table.find(name)) is not None]
    if text:
        return found if found and len(found) == len(named) else []
    taken = {_column(table, columns, field) for field in ("id", "category")}  # `id` would be Indonesian
    return [column for column in table.columns if column in found or (column not in taken and is_language(column))]


def _languages(table: Table, columns: Mapping[str, str], spoken: str | None) -> Iterable[str]:
    column = _column(table, columns, "language")
    if column is not None:
        return [language(cell).code for cell in table.texts(column)]
    if spoken is None:
        raise DataError(
            "does not say its language",
            where=table.path,
            remedy="name the file after it, for example mine_sw.csv, ask for one language alone, or add a column "
            f"`language`; columns: {', '.join(table.columns)}",
        )
    return [language(spoken).code] * len(table)


def _column(table: Table, columns: Mapping[str, str], field: str) -> str | None:
    """The column of a field: the one that was named, which has to be there, or one of the usual names."""
    if field in columns:
        table.cells(columns[field])
        return table.find(columns[field])
    return table.find(*_USUAL[field])


def _optional(table: Table, columns: Mapping[str, str], field: str) -> tuple[str, ...]:
    column = _column(table, columns, field)
    return table.texts(column) if column is not None else ("",) * len(table)


def _xthreatbench(request: Request) -> Iterator[Prompt]:
    columns = _checked(request.columns, request.folder)
    prompts = _of_tables("xthreatbench", "harmful", _tables(request.folder), columns, None)
    yield from (prompt for prompt in prompts if request.wants(prompt.language))


XTHREATBENCH = Benchmark(
    name="xthreatbench",
    title="harmful prompts after providers' policies (Banerjee et al., Findings of EMNLP 2025, arXiv:2502.11244)",
    languages=(),
    licence="",
    source="the data set SoftMINER-Group/Soteria of the hub, or a table per language",
    read=_xthreatbench,
    hub="SoftMINER-Group/Soteria",
    notes="size, columns, categories and licence are not published with the code: nothing is bundled",
)
