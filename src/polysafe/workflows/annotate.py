"""People label the answers of runs: sheets out, labels in."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from polysafe.annotate.checks import ADJUDICATOR, Given, check
from polysafe.annotate.collect import collect, open_runs
from polysafe.annotate.key import FILE, Key
from polysafe.annotate.result import Result, settle
from polysafe.annotate.sheets import FOLDER, csv_sheet, read_sheets, sheet_files
from polysafe.checkpoint.writer import output_error
from polysafe.errors import DataError, OutputError, RecipeError, ResourceError
from polysafe.evaluate.correction import keep_calibration
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.people import FILE as AGREEMENT
from polysafe.evaluate.people import People
from polysafe.extras import install_line
from polysafe.files.atomic import json_bytes, publish_directory, write_bytes_atomic
from polysafe.judge.calibrate import Calibration
from polysafe.progress import Progress, reporting, tell

LABELS = "labels.jsonl"
DISAGREEMENTS = "disagreements.csv"
CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Exported:
    """What raters are given.

    Attributes:
        folder: Where it is.
        key: What is on the sheets; not for raters.
        notes: What was left out, and what raters could guess a model by.
    """

    folder: Path
    key: Key
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """What people said.

    Attributes:
        folder: Where the files are.
        key: What was on the sheets.
        given: Who said what.
        result: Labels, agreement, errors of judges.
        people: What is kept with a run.
        files: Names of the files.
    """

    folder: Path
    key: Key
    given: Given
    result: Result
    people: People
    files: tuple[str, ...]


def export_sheets(
    runs: Sequence[Path],
    output: Path,
    *,
    raters: Sequence[str],
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Exported:
    """Writes blinded, shuffled sheets of the answers to harmful prompts, for each rater and language.

    Args:
        runs: Folders of runs, or of evaluations, whose two runs are mixed.
        output: Folder to write.
        raters: Names of the raters; each gets a folder, and the same answers in another order.
        languages: Only these.
        limit: Most answers of a language, drawn at random.
        seed: Of the draw and the orders: the same gives the same sheets.

    Raises:
        DataError: A folder holds no run, or there is nothing to label.
        RecipeError: A name of a rater or a language cannot be taken.
        OutputError: The output is there, or cannot be written.
    """
    for rater in raters:
        if not re.fullmatch(r"\w[\w.-]{0,39}", rater) or rater == ADJUDICATOR or raters.count(rater) > 1:
            raise RecipeError(
                f"{rater!r:.60} cannot be the name of a rater",
                where="--raters",
                remedy=f"use letters, digits, . _ and -, each name once, and not {ADJUDICATOR}",
            )
    opened = open_runs(runs)
    key, notes = collect(opened, raters=raters, languages=languages, limit=limit, seed=seed)
    _write(output, {FILE: json_bytes(key.as_json()), **dict(sheet_files(key))})
    return Exported(output, key, notes)


def import_sheets(
    exported: Path,
    sheets: Sequence[Path],
    output: Path,
    *,
    partial: bool = False,
    keep_in: Sequence[Path] = (),
    progress: Progress = tell,
) -> Imported:
    """Checks sheets that raters gave back, and writes labels, agreement and the errors of the runs' judges.

    Args:
        exported: Folder of the sheets, with their key.
        sheets: Files that raters gave back, or folders of them; those of the export by default.
        output: Folder to write.
        partial: Whether answers may be without a label.
        keep_in: Folders of runs that keep agreement, and the error of their judge, for their reports.
        progress: Called as `progress(what, done, total)`.

    Raises:
        DataError: Something on a sheet is not what was given out (see `check`); or a run is none of those labelled.
        ResourceError: There are several raters, and nltk is not installed.
        OutputError: The output is there, or cannot be written.
    """
    key = Key.load(exported)
    runs = [_labelled(folder, key) for folder in keep_in]
    given = check(read_sheets(list(sheets) or [exported / FOLDER], key), key, partial=partial)
    if len(given.labels) > 1 and find_spec("nltk") is None:
        raise ResourceError("agreement of raters needs the package nltk", remedy=install_line("nltk"))
    with reporting(progress):
        result = settle(key, given)
    labelled = {code: sum(item.id in result.labels for item in key.of_language(code)) for code in key.languages}
    people = People(labelled, result.agreements)
    files = dict(_files(key, given, result, people))
    _write(output, files)
    for run in runs:
        people.keep(run.folder)
        for calibration in _of_judge(result.calibrations, run):
            keep_calibration(run.folder, calibration)
    return Imported(output, key, given, result, people, tuple(files))


def _labelled(folder: Path, key: Key) -> ModelRun:
    run = ModelRun.load(folder)
    if run.about["records"]["sha256"] not in {asked.records_sha256 for asked in key.runs}:
        raise DataError(
            "is none of the runs whose answers were labelled",
            where=folder,
            remedy=f"these are: {', '.join(asked.model for asked in key.runs)}",
        )
    return run


def _of_judge(calibrations: Sequence[Calibration], run: ModelRun) -> Iterator[Calibration]:
    return (each for each in calibrations if dict(each.identity) == run.about["judge"]["identity"])


def _files(key: Key, given: Given, result: Result, people: People) -> Iterator[tuple[str, bytes]]:
    labels = result.labels
    rows = [
        {"id": item.id, "language": item.language, "prompt": item.prompt, "answer": item.answer,
         "label": str(labels[item.id]), "said": given.said(item.id), "notes": dict(given.notes.get(item.id, {}))}
        for item in key.items if item.id in labels
    ]  # fmt: skip
    yield LABELS, "".join(json.dumps(row) + "\n" for row in rows).encode()
    yield AGREEMENT, json_bytes(people.as_json())
    if result.disagreements:
        notes = {item.id: _told(given.said(item.id), given.notes.get(item.id, {})) for item in result.disagreements}
        yield DISAGREEMENTS, csv_sheet(ADJUDICATOR, result.disagreements, notes)
    for number, calibration in enumerate(result.calibrations, start=1):
        name = CALIBRATION if number == 1 else f"calibration-{number}.json"
        yield name, json_bytes(calibration.as_json())


def _told(said: Mapping[str, str], notes: Mapping[str, str]) -> str:
    told = (f"{rater}: {label}" + (f" ({notes[rater]})" if rater in notes else "") for rater, label in said.items())
    return "; ".join(told)


def _write(output: Path, files: Mapping[str, bytes]) -> None:
    """All of them, or none."""
    try:
        if output.exists() and not (output.is_dir() and not any(output.iterdir())):
            raise OutputError("is there already", where=output, remedy="choose another --output")
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=output.parent, prefix=f".{output.name}.", ignore_cleanup_errors=True
        ) as space:
            content = Path(space) / "content"
            content.mkdir()
            for name, data in files.items():
                (content / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(content / name, data)
            publish_directory(content, output)
    except OSError as error:
        raise output_error(output, error) from error
