"""In-context tasks: pairs of an input and its output in one language."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from polysafe.data.tables import read_table
from polysafe.errors import DataError


@dataclass(frozen=True, slots=True)
class Example:
    """An input with its only right output.

    Attributes:
        input: What is asked about, in NFC.
        output: The answer, in NFC.
    """

    input: str
    output: str


@dataclass(frozen=True)
class Task:
    """A task in one language.

    Attributes:
        name: Name of the task.
        language: Its language.
        examples: Distinct inputs with their outputs.
        origin: Where they come from, for messages and records.
        dropped: Why pairs were left out, and how many.
    """

    name: str
    language: str
    examples: tuple[Example, ...]
    origin: str = ""
    dropped: tuple[tuple[str, int], ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """Distinct outputs, in order of first appearance."""
        return tuple(dict.fromkeys(example.output for example in self.examples))

    @cached_property
    def sha256(self) -> str:
        """Hash over name, language and examples."""
        rows = [self.name, self.language, [[each.input, each.output] for each in self.examples]]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()


def make_task(
    name: str, language: str, pairs: Iterable[tuple[str, str]], *, origin: str = "", dropped: Counter[str] | None = None
) -> Task:
    """A task from raw pairs: empty ones, repeated ones and inputs with several outputs are left out and counted.

    Args:
        name: Name of the task.
        language: Its language.
        pairs: Inputs with their outputs.
        origin: Where they come from.
        dropped: What was left out before.
    """
    counts: Counter[str] = Counter(dropped or {})
    outputs: dict[str, set[str]] = {}
    for raw in pairs:
        given, wanted = (unicodedata.normalize("NFC", text).strip() for text in raw)
        if not given or not wanted:
            counts["empty"] += 1
        elif wanted in outputs.setdefault(given, set()):
            counts["repeated"] += 1
        else:
            outputs[given].add(wanted)
    kept = [Example(given, *wanted) for given, wanted in outputs.items() if len(wanted) == 1]
    ambiguous = sum(len(wanted) > 1 for wanted in outputs.values())
    if ambiguous:
        counts["several outputs"] += ambiguous
    return Task(name, language, tuple(kept), origin, tuple(sorted((reason, n) for reason, n in counts.items() if n)))


def load_task(
    path: Path, name: str, language: str, *, input_column: str = "input", output_column: str = "output"
) -> Task:
    """Reads a task from a table: a JSON list of objects (the published layout), JSON Lines, CSV, TSV or Parquet.

    Raises:
        DataError: The file cannot be read, is of another kind, or lacks a column.
    """
    table = read_table(path)
    given, wanted = (tuple(map(_shown, table.cells(column))) for column in (input_column, output_column))
    task = make_task(name, language, zip(given, wanted, strict=True), origin=path.name)
    if not task.examples:
        raise DataError("holds no usable pair of input and output", where=path)
    return task


def _shown(value: object) -> str:
    return "" if value is None else str(value)
