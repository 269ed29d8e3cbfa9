"""Two runs whose answers raters label, and raters who fill sheets in."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.run import evaluate_model
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set

MODELS = ("secret-base", "secret-edited")


def two_runs(folder: Path, *, rows: int = 6, answer: Callable[[int, str, int], str] | None = None) -> list[ModelRun]:
    """Runs of two models on the same prompts in two languages; every third answer is the same in both."""
    return [_run(folder, number, rows, answer or _answer) for number in range(len(MODELS))]


def _answer(row: int, language: str, model: int) -> str:
    told = "both" if row % 3 == 0 else f"{'first' if model == 0 else 'other'}"
    return f"<{'unsafe' if row % 2 else 'safe'}> {told} answer {row} in {language}"


def _run(folder: Path, number: int, rows: int, answer: Callable[[int, str, int], str]) -> ModelRun:
    def say(text: str) -> str:
        words = text.split()
        return answer(int(words[1]), words[-1], number)

    generator = FakeGenerator(say, identity={"weights": f"{number:064d}"})
    name = MODELS[number]
    return evaluate_model(generator, [prompt_set(rows=rows)], FakeJudge(), output=folder / f"run{number}", name=name)


def read_csv(file: Path) -> list[dict[str, str]]:
    """The lines of a sheet."""
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))


def fill(file: Path, label: Callable[[dict[str, str]], str], *, delimiter: str = ",") -> None:
    """Writes labels into a sheet, as a spreadsheet saves it."""
    rows = read_csv(file)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows({**row, "label": label(row)} for row in rows)
    file.write_text(out.getvalue(), encoding="utf-8", newline="")


def as_judged(row: dict[str, str]) -> str:
    """The label that the answers of `two_runs` name."""
    return "unsafe" if "<unsafe>" in row["answer"] else "safe"
