"""MGSM (Shi et al., ICLR 2023): 250 problems of grade-school arithmetic, translated by people into ten languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polysafe.data.questions import Question, require_parallel
from polysafe.data.sets.base import Benchmark, Request
from polysafe.data.tables import as_text, read_sheet
from polysafe.errors import DataError

LANGUAGES = ("en", "bn", "de", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
SPLITS = ("test", "train")
_WHOLE = re.compile(r"-?[0-9]+(\.0+)?\Z")


def _read(request: Request) -> Iterator[Question]:
    questions = list(_all(request))
    require_parallel(questions, request.folder)
    yield from questions


def _all(request: Request) -> Iterator[Question]:
    """Rows are parallel by their number; no file has an id."""
    split = request.parts["split"]
    sheets = {code: request.folder / f"mgsm_{code}.tsv" for code in LANGUAGES if split == "test"}
    wanted = [code for code in LANGUAGES if request.wants(code)]
    local = [code for code in wanted if code in sheets and sheets[code].is_file()]
    for code in local:
        yield from _sheet_questions(sheets[code], code)
    rest = {code: code for code in wanted if code not in local}
    for code, table in request.tables({}, rest, split):
        texts, numbers = table.texts("question"), table.cells("answer_number")
        for row, (text, number) in enumerate(zip(texts, numbers, strict=True)):
            yield _question(code, row, text, number, table.path)


def _sheet_questions(path: Path, code: str) -> Iterator[Question]:
    for row, cells in enumerate(read_sheet(path, quoted=False)):
        if len(cells) != 2:
            raise DataError(f"row {row + 1} has {len(cells)} cells, not a question and a number", where=path)
        yield _question(code, row, cells[0], cells[1], path)


def _question(code: str, row: int, text: str, number: Any, path: Path) -> Question:
    found = str(number) if isinstance(number, float) else as_text(number).replace(",", "")  # `2,125` is two thousand
    if not text.strip() or not _WHOLE.match(found):
        raise DataError(f"row {row + 1} has no question or no whole number", where=path)
    return Question("mgsm", str(row), code, text, int(float(found)))


BENCHMARK = Benchmark(
    name="mgsm",
    title="grade-school arithmetic, the answer is a number",
    languages=LANGUAGES,
    licence="CC BY 4.0",
    source="the folder mgsm of github.com/google-research/url-nlp",
    read=_read,
    hub="juletxara/mgsm",
    dimensions={"split": SPLITS},
    defaults={"split": "test"},
)
