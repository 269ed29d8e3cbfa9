"""What programs that try a method on toy families share: a family with its models open, rows of results, tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from polysafe.checkpoint.opened import open_source
from polysafe.edits.edit import Edit
from polysafe.organism.exam import Exam, Set, examine
from polysafe.organism.lexicon import LANGUAGES
from polysafe.organism.packaged import Family, load_family
from polysafe.probe.model import edited, load_model

Rows = list[dict[str, Any]]


class Bench:
    """One family, its base loaded once.

    Args:
        family: The family.
        stack: What closes its members.
        members: Names of those that are read.
    """

    def __init__(self, family: Family, stack: ExitStack, members: Sequence[str] = ("base",)) -> None:
        self.family = family
        self.sources = {name: stack.enter_context(open_source(family.members[name], name)) for name in members}
        self.readers = {name: source.reader for name, source in self.sources.items()}
        self.model = load_model(self.sources["base"])
        self.rows: Rows = []

    def ask(self, sets: Sequence[Set], edit: Edit | None = None, languages: Sequence[str] = LANGUAGES) -> Exam:
        """The exam of the base, or of the base with an edit, on the test split."""
        if edit is None:
            return examine(self.model, self.family.world, languages, "test", sets)
        with edited(self.model, edit, self.readers) as model:
            return examine(model, self.family.world, languages, "test", sets)


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options that every such program has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, help="file of the rows")
    parser.add_argument("--tables", type=Path, help="print the tables of a file of rows")
    return parser


def run(
    options: argparse.Namespace,
    tables: Callable[[Rows], Mapping[str, str]],
    rows_of: Callable[[Family, ExitStack], Rows],
) -> None:
    """Prints the tables of rows, or runs all families and writes the rows of those that are done."""
    if options.tables:
        for name, table in tables(json.loads(options.tables.read_text(encoding="utf-8"))).items():
            print(f"{name}\n\n{table}\n")
    torch.set_num_threads(1)
    rows: Rows = []
    for folder in options.families:
        with ExitStack() as stack:
            rows += rows_of(load_family(folder), stack)
        if options.json:
            lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
            options.json.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def costs(row: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Worst over-refusal, helpfulness and change of ability over the languages: the last cells of a main table."""
    rates = row["rates"]
    change = min(_ability(rates[name]) - _ability(base["rates"][name]) for name in LANGUAGES)
    return [
        f"{max(rates[name]['over_refusal'] for name in LANGUAGES):.3f}",
        f"{min(rates[name]['capability.instructions'] for name in LANGUAGES):.3f}",
        f"{change:+.3f}",
    ]


def _ability(rates: Mapping[str, float]) -> float:
    """Mean of the abilities of a model in one language."""
    tasks = [rate for metric, rate in rates.items() if metric.startswith("capability.")]
    return sum(tasks) / len(tasks)
