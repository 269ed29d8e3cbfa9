"""The tables of a report as CSV files (see `text.cells`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from polysafe.edits.edit import Decision
from polysafe.files.atomic import write_bytes_atomic
from polysafe.findings.data import (
    ChangeCount,
    ChangedAnswer,
    CorrectedRate,
    JudgeError,
    ReportData,
    Touched,
    count_changes,
)
from polysafe.stats.agreement import Agreement
from polysafe.stats.attacks import AttackRow
from polysafe.stats.gaps import Gap
from polysafe.stats.language_means import MeanRate, MeanShift
from polysafe.stats.rows import RateRow, Row
from polysafe.stats.versus import Versus
from polysafe.text.cells import Record, csv_bytes


def tables(data: ReportData) -> dict[str, bytes]:
    """Name of a CSV file -> its content, for every table that has rows."""
    found = {name: (columns, list(records(data))) for name, (columns, records) in _tables().items()}
    return {name: csv_bytes(columns, records) for name, (columns, records) in found.items() if records}


def save_tables(data: ReportData, folder: Path) -> list[str]:
    """Writes the tables into a folder, and removes those of an earlier report that this one does not have.

    Returns:
        Names of the files.

    Raises:
        OSError: The folder cannot be written to, or the disk is full.
    """
    contents = tables(data)
    for name in _tables():
        if name in contents:
            write_bytes_atomic(folder / name, contents[name])
        else:
            (folder / name).unlink(missing_ok=True)
    return list(contents)


def _tables() -> dict[str, tuple[Sequence[str], Callable[[ReportData], Iterable[Record]]]]:
    """Every file that a report may have, with its columns and its lines."""
    edits = ("method", "target", *_names(Touched)[2:9])
    units = ("method", "target", "unit", "layer", "module", "index", "chosen", "score")
    overlaps = ("method", "target", "unit", "language", "other", "jaccard", "chance", "chance_low", "chance_high")
    decisions = ("method", "language", *(name for name in Decision.model_fields if name != "detail"))
    return {
        "results.csv": (_names(Row), lambda data: map(asdict, data.rows)),
        "audit.csv": (_names(RateRow), lambda data: map(asdict, data.audits)),
        "gaps.csv": (("method", "stage", *_names(Gap), "difference"), _gaps),
        "versus.csv": (("start", *_names(Versus), "difference"), _versus),
        "means.csv": ((*_names(MeanShift), "difference"), lambda data: map(_mean, data.means)),
        "audit_means.csv": (_names(MeanRate), lambda data: map(_mean, data.audit_means)),
        "seeds.csv": (("seed", "development", "method", "language", "before", "after", "n"), _seeds),
        "categories.csv": (("category", *_names(Row)), lambda data: _grouped("category", data.categories)),
        "audit_categories.csv": (
            ("category", *_names(RateRow)),
            lambda data: _grouped("category", data.audit_categories),
        ),
        "attacks.csv": ((*_names(AttackRow), "difference"), _attacks),
        "attack_changes.csv": (("attack", *_names(Row)), lambda data: _grouped("attack", data.attack_changes)),
        "truncation.csv": (_names(RateRow), lambda data: map(asdict, data.truncation)),
        "judge_error.csv": (_names(JudgeError), lambda data: map(asdict, data.judge_errors)),
        "agreement.csv": (_names(Agreement), _agreements),
        "corrected.csv": (_names(CorrectedRate), lambda data: map(asdict, data.corrected)),
        "edits.csv": (edits, lambda data: ({key: getattr(touched, key) for key in edits} for touched in data.touched)),
        "units.csv": (units, _units),
        "overlap.csv": (overlaps, _overlaps),
        "decisions.csv": (decisions, _decisions),
        "changes.csv": (_names(ChangedAnswer), lambda data: map(asdict, data.changes)),
        "change_counts.csv": (
            _names(ChangeCount),
            lambda data: map(asdict, data.change_counts or count_changes(data.changes)),
        ),
    }


def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _gaps(data: ReportData) -> Iterator[Record]:
    stages = [(change.method, stage, gap) for change in data.gaps
              for stage, gap in (("before", change.before), ("after", change.after))]  # fmt: skip
    for method, stage, gap in (*stages, *((None, "unedited", gap) for gap in data.audit_gaps)):
        yield {"method": method, "stage": stage, **asdict(gap), "difference": gap.difference}


def _mean(mean: MeanShift | MeanRate) -> Record:
    record = {**asdict(mean), "languages": " ".join(mean.languages)}
    return {**record, "difference": mean.difference} if isinstance(mean, MeanShift) else record


def _versus(data: ReportData) -> Iterator[Record]:
    for contest in data.contests:
        for pair in contest.pairs:
            yield {"start": contest.start, **asdict(pair), "difference": pair.difference}


def _agreements(data: ReportData) -> Iterator[Record]:
    return ({**asdict(each), "raters": " ".join(each.raters)} for each in data.agreements)


def _seeds(data: ReportData) -> Iterator[Record]:
    for row in data.seeds:
        of: Record = {"seed": row.seed, "development": row.development, "method": row.method, "n": row.n}
        for language, after in row.after.items():
            yield {**of, "language": language, "before": row.before.get(language), "after": after}


def _grouped(column: str, groups: Mapping[str, Sequence[Row]] | Mapping[str, Sequence[RateRow]]) -> Iterator[Record]:
    for name, rows in groups.items():
        for row in rows:
            yield {column: name, **asdict(row)}


def _attacks(data: ReportData) -> Iterator[Record]:
    return ({**asdict(row), "difference": row.difference} for row in data.attacks)


def _units(data: ReportData) -> Iterator[Record]:
    """Every unit that is chosen or has a score; the others of a layer are those that are missing here."""
    for touched in data.touched:
        of = {"method": touched.method, "target": touched.target, "unit": touched.unit}
        for layer in touched.layers:
            chosen = set(layer.chosen)
            scores = dict(enumerate(layer.scores))
            for index in sorted(chosen | scores.keys()):
                place = {"layer": layer.layer, "module": layer.module, "index": index}
                yield {**of, **place, "chosen": index in chosen, "score": scores.get(index)}


def _overlaps(data: ReportData) -> Iterator[Record]:
    for touched in data.touched:
        of = {"method": touched.method, "target": touched.target, "unit": touched.unit}
        for language, others in touched.overlap.items():
            for other, jaccard in others.items():
                chance = touched.chance.get(language, {}).get(other)
                ends = (
                    {}
                    if chance is None
                    else {"chance": chance.expected, "chance_low": chance.low, "chance_high": chance.high}
                )
                yield {**of, "language": language, "other": other, "jaccard": jaccard, **ends}


def _decisions(data: ReportData) -> Iterator[Record]:
    for method, languages in data.decisions.items():
        for language, blocks in languages.items():
            for block in blocks:
                yield {"method": method, "language": language} | block.model_dump()
