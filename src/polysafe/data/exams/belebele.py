"""Belebele (Bandarkar et al., ACL 2024): 900 questions about passages of FLORES, in 122 languages.

Texts stay as published, with the doubled quotation marks that a former CSV file left in them: they are in every copy,
and published numbers were measured with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polysafe.data.exams.base import complete, in_prompt, letters, ordinals
from polysafe.data.languages import language, languages
from polysafe.data.questions import Question
from polysafe.data.sets.base import Benchmark, Request
from polysafe.data.tables import Table, read_table
from polysafe.errors import DataError

_NAME = "belebele"
_SEAHELM = "seahelm"


def _read(request: Request) -> Iterator[Question]:
    configs = {spoken.code: spoken.flores for spoken in languages() if spoken.flores}
    local = {code: f"{config}.jsonl" for code, config in configs.items()}
    found = set()
    for code, table in request.tables(local, configs, "test"):
        found.add(code)
        yield from _questions(table, code)
    parts = {code: path for code, path in _seahelm(request.folder).items() if request.wants(code) and code not in found}
    names = _names_by_row(request) if parts else {}
    for code, path in parts.items():
        yield from _seahelm_questions(read_table(path), code, names)


def _questions(table: Table, code: str) -> Iterator[Question]:
    choices = zip(*(table.texts(f"mc_answer{number}") for number in range(1, 5)), strict=True)
    golds = ordinals(table, "correct_answer_num")
    columns = (_names(table), table.texts("question"), golds, choices, table.texts("flores_passage"))
    yield from _complete(table, code, columns)


def _complete(table: Table, code: str, columns: Sequence[Iterable[Any]]) -> Iterator[Question]:
    rows = (Question(_NAME, name, code, *row) for name, *row in zip(*columns, strict=True))
    yield from complete(table, rows)


def _names(table: Table) -> tuple[str, ...]:
    """Files of some languages are in another order: a question is known by its passage and its number there."""
    parts = zip(table.texts("link"), table.texts("question_number"), strict=True)
    return tuple(f"{link}#{number}" for link, number in parts)


def _seahelm(folder: Path) -> dict[str, Path]:
    files = (folder / _SEAHELM).glob(f"*_{_NAME}.jsonl")
    return {language(path.name.removesuffix(f"_{_NAME}.jsonl")).code: path for path in sorted(files)}


def _names_by_row(request: Request) -> Mapping[str, str]:
    """Row of the English file -> name of its question; SEA-HELM's ids are those rows."""
    english = language("en")
    found = Request(request.folder).tables(
        {english.code: f"{english.flores}.jsonl"}, {english.code: str(english.flores)}, "test"
    )
    return {str(row): name for _, table in found for row, name in enumerate(_names(table))}


def _seahelm_questions(table: Table, code: str, names: Mapping[str, str]) -> Iterator[Question]:
    ids = table.texts("id")
    if lost := [row for row in ids if row not in names]:
        raise DataError(
            f"row {lost[0]!r} cannot be told from the English file, by whose rows SEA-HELM names its part",
            where=table.path,
            remedy="put eng_Latn.jsonl into the folder above it",
        )
    choices = zip(*(in_prompt(table, f"choice{number}") for number in range(1, 5)), strict=True)
    question, passage = in_prompt(table, "question"), in_prompt(table, "text")
    columns = ([names[row] for row in ids], question, letters(table, "label"), choices, passage)
    yield from _complete(table, code, columns)


BENCHMARK = Benchmark(
    name=_NAME,
    title="reading comprehension, four choices",
    languages=(),
    licence="CC BY-SA 4.0",
    source="the files of facebook/belebele, one per language",
    read=_read,
    hub="facebook/belebele",
    notes="SEA-HELM's part of it (280 questions in jv and su) has its choices in another order",
)
