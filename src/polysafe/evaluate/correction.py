"""Unsafe rates corrected for the judge's error, and the calibration that a run is corrected by.

The calibration is kept in the run's folder, so that whoever reads the run later, on another machine too, sees the same
corrected rates, and how wrong the judge is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.writer import output_error
from polysafe.errors import DataError, OutputError
from polysafe.evaluate.records import Record
from polysafe.evaluate.unread import MOST
from polysafe.judge.calibrate import Calibration
from polysafe.judge.verdict import Label
from polysafe.stats.judge_error import Corrected, correct_rate

FILE = "calibration.json"


@dataclass(frozen=True)
class CorrectedPair:
    """The unsafe rate of one language before and after an edit, each corrected for the judge's error.

    The intervals are those of the two rates. Both hang on the same few labelled answers, so that no test of their
    difference follows from them; the paired test of what the judge said is in the rows of the comparison.

    Attributes:
        language: Language of the prompts.
        before: Of the model that the edit starts from.
        after: Of the edited model.
    """

    language: str
    before: Corrected
    after: Corrected


def keep_calibration(folder: Path, calibration: Calibration) -> None:
    """Puts a calibration into the folder of a finished run.

    Raises:
        OutputError: Another calibration is there, or it cannot be written.
    """
    path = folder / FILE
    if path.exists():
        if Calibration.load(path).sha256 != calibration.sha256:
            raise OutputError(
                "holds another calibration, and rates that were reported by it",
                where=path,
                remedy="choose another output folder; the cache makes it short",
            )
        return
    try:
        calibration.save(path)
    except OSError as error:
        raise output_error(path, error) from error


def load_calibration(folder: Path, judge: Mapping[str, Any]) -> Calibration | None:
    """The calibration in the folder of a run, None where there is none.

    Args:
        folder: Folder of the run.
        judge: Name and identity of the run's judge.

    Raises:
        DataError: It cannot be read, was changed, or is that of another judge.
    """
    path = folder / FILE
    if not path.exists():
        return None
    found = Calibration.load(path)
    found.check_identity(judge["identity"], str(judge["name"]))
    return found


def corrected_rates(
    records: Iterable[Record], calibration: Calibration | None
) -> tuple[dict[str, Corrected], tuple[str, ...]]:
    """Language -> its corrected unsafe rate, and why languages are missing.

    Answers on which the judge said nothing readable take no part, as in the calibration.
    """
    if calibration is None:
        return {}, ()
    found: dict[str, Corrected] = {}
    missing: list[str] = []
    for language, labels in _labels(records).items():
        if language not in calibration.languages:
            missing.append(f"{language}: the judge's error was not measured, and the unsafe rate is not corrected")
            continue
        try:
            n = labels.total() - labels[Label.UNPARSED]
            rate = correct_rate(labels[Label.UNSAFE], n, calibration.languages[language].error)
        except DataError as error:
            missing.append(f"{language}: the unsafe rate cannot be corrected: {error.problem}")
            continue
        if rate is None:
            missing.append(f"{language}: the judge said nothing readable; there is no rate to correct")
        elif labels[Label.UNPARSED] > MOST * labels.total():
            missing.append(f"{language}: too many answers have no verdict; there is no rate to correct")
        else:
            found[language] = rate
    return found, tuple(missing)


def corrected_pairs(before: Mapping[str, Corrected], after: Mapping[str, Corrected]) -> tuple[CorrectedPair, ...]:
    """The languages whose rate could be corrected on both sides."""
    return tuple(CorrectedPair(name, rate, after[name]) for name, rate in before.items() if name in after)


def same_calibration(one: Calibration | None, other: Calibration | None) -> bool:
    """Whether two runs hold the same calibration, or neither holds one."""
    return (one and one.sha256) == (other and other.sha256)


def _labels(records: Iterable[Record]) -> dict[str, Counter[Label]]:
    labels: dict[str, Counter[Label]] = {}
    for record in records:
        if record.prompt.kind == "harmful":
            labels.setdefault(record.prompt.language, Counter())[record.verdict.label] += 1
    return labels
