"""What an audit found: the rates of one model in every language, and how far from the pivot they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from polysafe.evaluate.attacks.rows import attack_notes, attack_rows
from polysafe.evaluate.compare import run_notes
from polysafe.evaluate.metrics import CAPABILITY
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.unread import comparable
from polysafe.stats.attacks import AttackRow
from polysafe.stats.gaps import Gap, gap_rows
from polysafe.stats.judge_error import Corrected
from polysafe.stats.means import MeanGap, MeanRow, mean_gaps, mean_rows
from polysafe.stats.rows import RateRow

_GAPS = ("unsafe", "over_refusal", CAPABILITY)
_UNJUDGED_GAPS = ("refused", *_GAPS)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        run: Every record.
        rates: Every metric in every language, with its interval.
        gaps: The languages against the pivot on the same prompts; empty where the pivot was not asked.
        notes: What a reader should know.
        corrected: Language -> its unsafe rate, corrected for the judge's error; empty without a calibration.
        numbers: Means of what was measured in numbers, such as refusal log-odds, in every language.
        number_gaps: The languages against the pivot in them, on the same prompts.
        attacks: The same prompts rewritten by attacks, against the published ones; they are in no other field.
    """

    run: ModelRun
    rates: tuple[RateRow, ...]
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]
    corrected: Mapping[str, Corrected] = field(default_factory=dict)
    numbers: tuple[MeanRow, ...] = ()
    number_gaps: tuple[MeanGap, ...] = ()
    attacks: tuple[AttackRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The audit in values that JSON can hold."""
        return {
            "model": self.run.name,
            "run": str(self.run.folder),
            "judge": self.run.judge,
            "rates": [asdict(row) for row in self.rates],
            "gaps": [asdict(gap) for gap in self.gaps],
            "corrected": {language: asdict(found) for language, found in self.corrected.items()},
            "numbers": [asdict(row) for row in self.numbers],
            "number_gaps": [asdict(gap) for gap in self.number_gaps],
            "attacks": [{**asdict(row), "difference": row.difference} for row in self.attacks],
            "truncation": [asdict(row) for row in self.run.truncation()],
            "notes": list(self.notes),
        }


def read_audit(run: ModelRun, pivot: str = "en") -> Audit:
    """The audit that a run amounts to, corrected for the judge's error by the calibration in its folder.

    Args:
        run: The run.
        pivot: Language that the others are compared with.
    """
    wanted = _GAPS if run.judged else _UNJUDGED_GAPS
    asked = {cell: items for cell, items in comparable(run.outcomes).items() if cell[1].startswith(wanted)}
    with_pivot = {metric for language, metric in asked if language == pivot}
    cells = {cell: items for cell, items in asked.items() if cell[1] in with_pivot}
    gaps = (
        gap_rows(run.name, cells, pivot, clusters=run.repeated) if len({language for language, _ in cells}) > 1 else []
    )
    values = [each.values for each in run.numbers]
    return Audit(
        run,
        tuple(run.rates()),
        tuple(gaps),
        (*run_notes(run), *_unread(run), *attack_notes(run)),
        run.corrected,
        tuple(row for each in values for row in mean_rows(run.name, each, run.repeated)),
        tuple(gap for each in values for gap in mean_gaps(run.name, each, pivot, run.repeated)),
        tuple(attack_rows(run)),
    )


def _unread(run: ModelRun) -> Iterator[str]:
    count = sum(record.completion.tokens == 0 and record.truncated for record in run.records)
    if count:
        yield f"{count} prompts do not fit the model's positions; they have no answer and count as invalid"
