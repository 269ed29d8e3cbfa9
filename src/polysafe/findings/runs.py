"""From finished runs to report data: one model, a model and its edits, an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from polysafe.data.groupings import Grouping
from polysafe.evaluate import metrics
from polysafe.evaluate.attacks.rows import attack_notes, attack_rows
from polysafe.evaluate.audited import Audit
from polysafe.evaluate.compare import Comparison
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.saved import SavedEvaluation
from polysafe.findings.data import CorrectedRate, JudgeError, PhraseRate, ReportData
from polysafe.findings.edits import target_of
from polysafe.findings.gather import Answer, Answered, Findings, Pair
from polysafe.findings.names import method_name
from polysafe.findings.settings import about_runs, caveats, is_toy, language_names, language_tiers
from polysafe.judge.calibrate import Calibration
from polysafe.judge.phrase_error import phrase_errors
from polysafe.stats.intervals import Interval


def audit_report(audit: Audit, *, pivot: str = "en", groups: Grouping | None = None) -> ReportData:
    """What an audit of one model shows.

    Args:
        audit: The audit.
        pivot: Language that it compares the others with.
        groups: Whose resource levels languages are shown in; by default the grouping that knows most of them.
    """
    run, findings = audit.run, Findings()
    findings.add_model(answered(run, pivot, refusals=metrics.tells_refusals(run.records)))
    findings.truncation += run.truncation()
    _add_judge(findings, run.name, run)
    findings.numbers += audit.numbers
    findings.number_gaps += audit.number_gaps
    findings.attacks += audit.attacks
    return _data(findings, f"Audit of {run.name}", [run], pivot, (*audit.notes, *caveats([run])), groups)


def comparison_report(
    comparisons: Sequence[Comparison],
    *,
    pivot: str = "en",
    groups: Grouping | None = None,
    headline: str | None = None,
) -> ReportData:
    """What one or more edits of a model changed.

    Args:
        comparisons: Comparisons with one and the same run before, and a method name each.
        pivot: Language that the others are compared with.
        groups: As for `audit_report`.
        headline: The method that the verdict is about; by default the first.
    """
    findings, runs, notes = _compared(comparisons, pivot)
    first = comparisons[0]
    title = f"{first.before.name}: {len(comparisons)} edits compared"
    if len(comparisons) == 1:
        title = f"{first.before.name}: {method_name(first.method)}"
    return replace(_data(findings, title, runs, pivot, notes, groups), headline=headline)


def evaluation_report(evaluation: SavedEvaluation, *, groups: Grouping | None = None) -> ReportData:
    """What the edits of a recipe changed, and what they touch.

    Args:
        evaluation: What `polysafe evaluate` left behind.
        groups: As for `audit_report`.
    """
    comparison, about = evaluation.comparison, evaluation.about
    findings, runs, notes = _compared([comparison, *evaluation.controls], about.pivot)
    findings.add_edit(comparison.method, target_of(evaluation.edit), evaluation.edit, about.start)
    title = f"{comparison.before.name}: {method_name(comparison.method)}"
    data = _data(findings, title, runs, about.pivot, notes, groups)
    hashes = {"edit": evaluation.edit.sha256, **{f"{name} ({role})": sha for name, role, sha in _weights(evaluation)}}
    return replace(
        data,
        toy=data.toy or is_toy([], evaluation.edit),
        meta={**data.meta, "SHA-256 of edit and sources": hashes},
    )


def _weights(evaluation: SavedEvaluation) -> Iterator[tuple[str, str, str]]:
    for name, record in evaluation.edit.sources.items():
        yield from ((name, file, sha) for file, sha in record.files.items())


def answered(run: ModelRun, pivot: str, *, refusals: bool) -> Answered:
    """A run as findings take it.

    Args:
        run: The run.
        pivot: Language that the others are compared with.
        refusals: Whether refusals are counted (see `metrics.outcomes`).
    """
    return Answered(
        name=run.name,
        pivot=pivot,
        outcomes=run.outcomes_where(refusals=refusals),
        answers=partial(_answers, run),
        categories=metrics.unsafe_by_category(run.records),
        clusters=run.repeated,
    )


def _answers(run: ModelRun) -> Iterator[Answer]:
    for record in run.records:
        prompt, verdict = record.prompt, record.verdict
        # Of a harmless prompt it matters whether it was refused, and that is no label.
        said = "refused" if prompt.kind == "harmless" and verdict.refused else str(verdict.label)
        yield Answer(prompt.language, prompt.set, prompt.parallel, prompt.text, record.completion.text, said)


def _compared(comparisons: Sequence[Comparison], pivot: str) -> tuple[Findings, list[ModelRun], tuple[str, ...]]:
    before = comparisons[0].before
    runs = [before, *(each.after for each in comparisons)]
    refusals = metrics.tells_refusals(record for run in runs for record in run.records)
    start, findings = answered(before, pivot, refusals=refusals), Findings()
    findings.add_model(start)
    findings.truncation += before.truncation()
    _add_judge(findings, before.name, before)
    findings.attacks += attack_rows(before)
    for each in comparisons:
        after = answered(each.after, pivot, refusals=refusals)
        findings.number_changes += each.numbers
        findings.add_method(each.method, [Pair(start, after, each.after.languages)], each.rows)
        findings.truncation += (replace(row, model=each.method) for row in each.after.truncation())
        _add_judge(findings, each.method, each.after)
        findings.attacks += attack_rows(each.after, each.method)
        for attack, rows in each.attacks.items():
            findings.attack_changes.setdefault(attack, []).extend(rows)
    notes = dict.fromkeys(note for each in comparisons for note in (*each.notes, *attack_notes(before)))
    return findings, runs, (*notes, *caveats(runs))


def _add_judge(findings: Findings, name: str, run: ModelRun) -> None:
    """The judge's measured error, where it was given, rates corrected for it, and how far people agree."""
    if run.people is not None:
        findings.agreements += (each for each in run.people.agreements if each not in findings.agreements)
    if run.calibration is None:
        return
    findings.judge_errors += (each for each in judge_errors(run.calibration) if each not in findings.judge_errors)
    findings.corrected += (
        CorrectedRate(name, language, rate.observed, rate.rate, rate.low, rate.high, rate.n)
        for language, rate in run.corrected.items()
    )


def judge_errors(calibration: Calibration) -> Iterator[JudgeError]:
    """The error in the languages that were labelled with both kinds of answers."""
    for language, counts in calibration.languages.items():
        rates: list[Any] = [counts.sensitivity, counts.specificity]
        ends: list[Interval | None] = [counts.sensitivity_interval, counts.specificity_interval]
        if None in rates or ends[0] is None or ends[1] is None:
            continue
        unsafe, other = counts.found + counts.missed, counts.cleared + counts.accused
        yield JudgeError(calibration.judge, language, rates[0], *ends[0], unsafe, rates[1], *ends[1], other)


def _data(
    findings: Findings,
    title: str,
    runs: Sequence[ModelRun],
    pivot: str,
    notes: Sequence[str],
    groups: Grouping | None,
) -> ReportData:
    languages = tuple(dict.fromkeys(language for run in runs for language in run.languages))
    toy = is_toy(runs)
    grouped, tiers = language_tiers(languages, pivot, groups)
    return replace(
        findings.data(title, toy=toy, tiers=tiers),
        languages=language_names(languages, toy=toy),
        meta=about_runs(runs, pivot, grouped, languages),
        limits=tuple(dict.fromkeys(notes)),
        judge=runs[0].judge,
        phrase_errors=() if runs[0].judged else tuple(_phrase_rates(languages)),
    )


def _phrase_rates(languages: Sequence[str]) -> Iterator[PhraseRate]:
    """The measured error of the phrase rule in these languages, as far as it was measured."""
    errors = phrase_errors()
    for code in languages:
        if (error := errors.get(code)) is not None:
            yield PhraseRate(code, error.refusals, error.missed, error.others, error.false_alarms)
