"""MMMLU (OpenAI): the 57 subjects of MMLU, translated by people into 14 languages. Read in the hub's layout only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from polysafe.data.exams.base import complete, letters
from polysafe.data.languages import language
from polysafe.data.questions import LETTERS, Question, require_parallel
from polysafe.data.sets.base import Benchmark, Request
from polysafe.data.tables import Table

_CONFIGS = "AR_XY BN_BD DE_DE ES_LA FR_FR HI_IN ID_ID IT_IT JA_JP KO_KR PT_BR SW_KE YO_NG ZH_CN"
CONFIGS = tuple(_CONFIGS.split())
# Some files hold the name of a file: `college_mathematics_test.csv_sw-KE.csv`.
_FILE = re.compile(r"_test(\.csv|-).*")


def _read(request: Request) -> Iterator[Question]:
    configs = {language(config).code: config for config in CONFIGS}
    questions = [one for code, table in request.tables({}, configs, "test") for one in _questions(table, code)]
    require_parallel(questions, request.folder)
    yield from questions


def _questions(table: Table, code: str) -> Iterator[Question]:
    """Rows are parallel by their place within the subject, and are named as those of Global-MMLU."""
    subjects = [_FILE.sub("", subject) for subject in table.texts("Subject")]
    place: Counter[str] = Counter()
    names = []
    for subject in subjects:
        names.append(f"{subject}/test/{place[subject]}")
        place[subject] += 1
    choices = zip(*(table.texts(letter) for letter in LETTERS), strict=True)
    rows = zip(names, table.texts("Question"), letters(table, "Answer"), choices, subjects, strict=True)
    yield from complete(
        table,
        (
            Question("mmmlu", name, code, question, gold, options, subject=subject)
            for name, question, gold, options, subject in rows
        ),
    )


BENCHMARK = Benchmark(
    name="mmmlu",
    title="exam questions of 57 subjects, translated by people",
    languages=CONFIGS,
    licence="MIT",
    source="the files of openai/MMMLU",
    read=_read,
    hub="openai/MMMLU",
    notes="has no English",
)
