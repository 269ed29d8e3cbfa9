"""Prompts of the family in real languages as tables that recipes can name."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from polysafe.files.atomic import write_bytes_atomic
from polysafe.organism.gemma.texts import LANGUAGES, Texts

_ANCHORS = 128
_HARMLESS = 150


@dataclass(frozen=True)
class Tables:
    """The tables in a folder.

    Attributes:
        harmful: Anchors of XSafety that no member was trained on, parallel in English, Chinese, Arabic and Bengali.
        harmless: Anchors of SIB-200's training part, parallel in all languages: sentences, and questions for a topic.
        validation: Harmless prompts to choose by, a row per language and prompt.
        test: Harmless prompts to report on, of the same form; no member was trained on either.
    """

    harmful: Path
    harmless: Path
    validation: Path
    test: Path


def write_tables(texts: Texts, folder: Path) -> Tables:
    """Writes the tables.

    Raises:
        DataError: A file of a set is missing.
        OSError: The folder cannot be written to.
    """
    tables = Tables(*(folder / f"{name}.csv" for name in ("harmful", "harmless", "validation", "test")))
    folder.mkdir(parents=True, exist_ok=True)
    _write(tables.harmful, ("id", "en", "zh", "ar", "bn"), _harmful(texts))
    _write(tables.harmless, ("id", *LANGUAGES), _harmless(texts))
    rows = [(code, text) for code in LANGUAGES for text in texts.harmless(code)[:_HARMLESS]]
    _write(tables.validation, ("language", "prompt"), rows[1::3])
    _write(tables.test, ("language", "prompt"), [row for number, row in enumerate(rows) if number % 3 != 1])
    return tables


def _harmful(texts: Texts) -> list[Sequence[str]]:
    columns = [{each.parallel: each.text for each in texts.anchors(code)} for code in ("en", "zh", "ar", "bn")]
    names = [name for name in columns[0] if all(len(column.get(name, "")) > 3 for column in columns)]
    spread = names[:: max(1, len(names) // _ANCHORS)][:_ANCHORS]
    return [(name, *(column[name] for column in columns)) for name in spread]


def _harmless(texts: Texts) -> Sequence[Sequence[str]]:
    topics = [[prompt for prompt, _ in texts.topics(code)] for code in LANGUAGES]
    rows = []
    for number, prompts in enumerate(zip(*topics, strict=True)):
        # Bare sentences beside questions: a model that is asked nothing must not learn to refuse either.
        bare = [prompt.partition("? ")[2] for prompt in prompts] if number % 3 else prompts
        rows.append((f"sib-{number}", *bare))
    return rows[:_ANCHORS]


def _write(file: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_bytes_atomic(file, text.getvalue().encode())
