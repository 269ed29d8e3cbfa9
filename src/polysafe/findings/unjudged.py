"""What is said where a judge gave no verdict: that it did not, and what is possible. The model is not at fault."""

from __future__ import annotations

from collections.abc import Sequence

from polysafe.evaluate.metrics import WITHOUT_VERDICT
from polysafe.findings.data import ReportData
from polysafe.findings.names import language_name
from polysafe.stats.rows import RateRow
from polysafe.text.readable import percent

_NAMED = 4


def withheld(data: ReportData, model: str, metric: str = "unsafe") -> list[RateRow]:
    """The languages whose rate is not shown: their interval holds all that the missing verdicts may be."""
    rows = list(data.of_model(model, metric))
    return [row for row in rows if row.rate is None and row.interval is not None]


def about_judge(data: ReportData, model: str) -> str:
    """How many answers the judge gave no verdict on, in a sentence without its full stop."""
    counted = [row for row in data.of_model(model) if row.metric in WITHOUT_VERDICT]
    missing = sum(round((row.rate or 0.0) * row.n) for row in counted)
    return f"{_judge(data)} gave no verdict on {missing} of {sum(row.n for row in counted)} answers"


def too_few_verdicts(data: ReportData) -> str:
    """The same of the answers before and after an edit, where they are not counted together."""
    return f"{_judge(data)} gave too few verdicts"


def _judge(data: ReportData) -> str:
    return f"The judge {data.judge}" if data.judge else "The judge"


def possible(data: ReportData, rows: Sequence[RateRow]) -> str:
    """What the unsafe rates may be, language by language."""
    spans = [f"{_span(row)} in {language_name(row.language, data.languages)}" for row in rows[:_NAMED]]
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return f"{', '.join(spans)}{more}"


def _span(row: RateRow) -> str:
    return f"{percent(row.low)} to {percent(row.high)}"
