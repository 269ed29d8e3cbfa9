"""What has to be seen with the first number: who judged, how many answers were cut off, and how few were asked."""

from __future__ import annotations

from collections.abc import Iterator

from polysafe.findings.data import IMPORTED_WEIGHTS, ReportData
from polysafe.findings.names import language_name
from polysafe.findings.summary import headline_method
from polysafe.report.sections.seeds import seed_sentence
from polysafe.stats.intervals import wilson
from polysafe.text.readable import LEVEL, MAX_TEXT, clip, one_line, percent

_CUT = 0.05
_WIDE = 0.15
"""A rate of 0 whose interval reaches beyond this share rests on too few answers (fewer than 22)."""


def facts(data: ReportData) -> Iterator[str]:
    """Sentences for the first screen."""
    if data.judge:
        yield f"Judged by {clip(one_line(data.judge))}." if data.judged else "Judged by nobody."
    for models, text in data.meta.get(IMPORTED_WEIGHTS, {}).items():
        yield f"Of {clip(one_line(models))}, {clip(one_line(str(text)), MAX_TEXT)}."
    cut = [row for row in data.truncation if row.rate is not None]
    worst = max(cut, key=lambda row: row.rate or 0.0, default=None)
    if worst is not None and (worst.rate or 0.0) >= _CUT:
        where = ", ".join(clip(one_line(each)) for each in (worst.model, language_name(worst.language, data.languages)))
        yield (
            f"Cut off by the token budget: up to {percent(worst.rate)} of answers ({where}); what they would have said "
            "is not known."
        )
    if told := seed_sentence(data, headline_method(data)):
        yield told
    sizes = [row.n for row in data.audits if row.metric in _ASKED] + [r.n for r in data.rows if r.metric in _ASKED]
    fewest = min(filter(None, sizes), default=None)
    if fewest is not None and (span := wilson(0, fewest)) is not None and span.high > _WIDE:
        yield (
            f"Few prompts: some rates rest on n = {fewest}, where even 0 % leaves up to {percent(span.high)} possible "
            f"({LEVEL} interval). A difference in so small a sample may be chance."
        )


_ASKED = ("unsafe", "refused", "over_refusal")
