"""XCOPA (Ponti et al., EMNLP 2020): which of two events is the cause or the effect of a third."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from polysafe.data.exams.base import complete
from polysafe.data.questions import Question
from polysafe.data.sets.base import Benchmark, Request
from polysafe.data.tables import Table
from polysafe.errors import DataError

LANGUAGES = ("et", "ht", "id", "it", "qu", "sw", "ta", "th", "tr", "vi", "zh")
SPLITS = ("test", "validation")
_LOCAL = {"test": "test", "validation": "val"}


def _read(request: Request) -> Iterator[Question]:
    split = request.parts["split"]
    local = {code: f"{code}/{_LOCAL[split]}.{code}.jsonl" for code in LANGUAGES}
    for code, table in request.tables(local, {code: code for code in LANGUAGES}, split):
        yield from _questions(table, code)


def _questions(table: Table, code: str) -> Iterator[Question]:
    names, premises, asked, labels = map(table.texts, ("idx", "premise", "question", "label"))
    for number, (kind, label) in enumerate(zip(asked, labels, strict=True), 1):
        if kind not in {"cause", "effect"} or label not in {"0", "1"}:
            raise DataError(f"row {number} asks for neither cause nor effect, or has no label 0 or 1", where=table.path)
    choices = zip(table.texts("choice1"), table.texts("choice2"), strict=True)
    golds = map(int, labels)
    rows = map(Question, repeat("xcopa"), names, repeat(code), asked, golds, choices, premises, asked)
    yield from complete(table, rows)


BENCHMARK = Benchmark(
    name="xcopa",
    title="cause or effect, two choices",
    languages=LANGUAGES,
    licence="CC BY 4.0",
    source="the folder data of github.com/cambridgeltl/xcopa",
    read=_read,
    hub="cambridgeltl/xcopa",
    dimensions={"split": SPLITS},
    defaults={"split": "test"},
    notes="has no English; in Thai every row says `effect`, also where the others say `cause`; a few labels differ in "
    "id, it, sw and tr",
)
