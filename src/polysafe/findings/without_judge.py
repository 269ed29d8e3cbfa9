"""What a report says where nobody judged the answers: refusals by their phrases, never how many are unsafe."""

from __future__ import annotations

from collections.abc import Iterator

from polysafe.evaluate.odds import HARMFUL
from polysafe.findings.data import ReportData
from polysafe.findings.names import language_name, method_name, pivot_of
from polysafe.findings.outcome import Kind, Verdict
from polysafe.findings.summary import SIGNIFICANT, headline_method
from polysafe.stats.rows import RateRow, Row
from polysafe.text.readable import LEVEL, percent, signed

WITHOUT_JUDGE = (
    "Nobody judged the answers, so no rate of unsafe ones is known. Refused means that an answer begins with a known "
    "refusal phrase of its language or of English; what it goes on to say was not looked at, and refusals in other "
    "words are missed. polysafe judge run judges the same answers later."
)


def without_judge(data: ReportData) -> Verdict:
    """The verdict where nobody judged: what is known of refusals, and that nothing is known of unsafe answers."""
    method = headline_method(data)
    said = _of_method(data, method) if method is not None else _of_model(data)
    sentences = ["Whether answers are unsafe was not measured: no judge was named.", *said]
    return Verdict(Kind.NO_JUDGE, " ".join(sentences), _evidence(data))


def _of_model(data: ReportData) -> Iterator[str]:
    model = data.audits[0].model if data.audits else ""
    rows = [r for r in data.of_model(model, "refused") if r.rate is not None]
    if rows:
        pivot = pivot_of(data.tiers)
        worst = min(rows, key=lambda row: (row.rate or 0.0, row.language == pivot))
        base = next((row for row in rows if row.language == pivot), None)
        least = f"{percent(worst.rate)} of harmful requests in {_name(data, worst)} (n {worst.n})"
        beside = "" if base is None or base is worst else f", and {percent(base.rate)} in {_name(data, base)}"
        yield f"By its phrases the model refuses {least}, the fewest{beside}."
    odds = [row for row in data.numbers if row.metric == HARMFUL and row.mean is not None]
    if odds:
        low = min(odds, key=lambda row: row.mean or 0.0)
        wider = sum(
            (gap.difference or 0.0) < 0 and gap.p_adjusted is not None and gap.p_adjusted < SIGNIFICANT
            for gap in data.number_gaps
            if gap.metric == HARMFUL
        )
        where = f"in {language_name(low.language, data.languages)}"
        yield f"It is least inclined to refuse {where}: mean log-odds {signed(low.mean)}" + (
            f"; significantly less than in the pivot in {wider} of {len(odds) - 1} languages."
            if len(odds) > 1 and data.number_gaps
            else "."
        )


def _of_method(data: ReportData, method: str) -> Iterator[str]:
    rows = [r for r in data.of_method(method, "refused") if r.difference is not None]
    if rows:
        more = sum((r.difference or 0) > 0 and r.p_adjusted is not None and r.p_adjusted < SIGNIFICANT for r in rows)
        before, after = (sum(map(value, rows)) / len(rows) for value in (_before, _after))
        yield (
            f"{method_name(method)}: refusals by their phrases went from {percent(before)} to {percent(after)} of "
            f"harmful requests (mean of {len(rows)} languages; significantly more in {more})."
        )
    changes = [c for c in data.number_changes if (c.method, c.metric) == (method, HARMFUL) and c.difference is not None]
    if changes:
        up = sum((c.difference or 0) > 0 and c.p_adjusted is not None and c.p_adjusted < SIGNIFICANT for c in changes)
        mean = sum(c.difference or 0.0 for c in changes) / len(changes)
        yield f"Refusal log-odds moved by {signed(mean)} on average, significantly up in {up} of {len(changes)}."


def _before(row: Row) -> float:
    return row.before or 0.0


def _after(row: Row) -> float:
    return row.after or 0.0


def _evidence(data: ReportData) -> str:
    sizes = [row.n for row in data.audits if row.metric == "refused"]
    sizes += [row.n for row in data.rows if row.metric == "refused"]
    if not sizes:
        return "No harmful request was asked."
    size = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
    return f"n = {size} harmful requests per language; intervals are {LEVEL}, tests are paired and Holm-adjusted."


def _name(data: ReportData, row: RateRow) -> str:
    return language_name(row.language, data.languages)
