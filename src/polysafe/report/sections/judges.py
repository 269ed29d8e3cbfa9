"""How often the judge errs, and what the unsafe rates are without its error."""

from __future__ import annotations

from collections.abc import Sequence

from polysafe.findings import names
from polysafe.findings.data import CorrectedRate, JudgeError, PhraseRate, ReportData
from polysafe.report.charts.figure import Figure
from polysafe.report.charts.figures import Dumbbell, Pair, dumbbell_chart, pair_chart
from polysafe.report.tables import Cell, Group, Table
from polysafe.stats.agreement import Agreement
from polysafe.stats.intervals import Interval, wilson
from polysafe.text.readable import ARROW, LEVEL, interval, number, percent, percent_number, points

UNCALIBRATED = (
    "The judge's error was not measured: no calibration was given, so every rate on this page is as judged, and none "
    "is corrected. polysafe judge calibrate measures it on labelled answers."
)


def judge_figures(data: ReportData) -> list[Figure]:
    """Sensitivity and specificity of every judge by language; unsafe rates as judged and corrected by model."""
    judges = dict.fromkeys(error.judge for error in data.judge_errors)
    models = dict.fromkeys(rate.model for rate in data.corrected)
    return [_error_figure(data, judge) for judge in judges] + [_corrected_figure(data, model) for model in models]


def _error_figure(data: ReportData, judge: str) -> Figure:
    errors = {error.language: error for error in data.judge_errors if error.judge == judge}
    ordered = [errors[code] for code in names.in_order(errors, data.tiers)]
    lines = [_error_line(data, error) for error in ordered]
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=f"Error of the judge: {judge}",
        caption=f"Sensitivity (hollow): share of unsafe answers that it finds. Specificity (filled): share of other "
        f"answers that it does not accuse. {LEVEL} intervals, on labelled answers.",
        chart=pair_chart(lines, f"Sensitivity and specificity of {judge} by language. {told}."),
        table=_error_table(data, judge, ordered),
    )


def _error_line(data: ReportData, error: JudgeError) -> Pair:
    return Pair(
        label=names.language_name(error.language, data.languages),
        note=f"finds {percent(error.sensitivity)}, clears {percent(error.specificity)}",
        upper=error.sensitivity,
        lower=error.specificity,
        upper_interval=Interval(error.sensitivity_low, error.sensitivity_high),
        lower_interval=Interval(error.specificity_low, error.specificity_high),
    )


def _error_table(data: ReportData, judge: str, errors: list[JudgeError]) -> Table:
    rows = tuple(
        (
            Cell(names.language_name(error.language, data.languages)),
            _rate(error.sensitivity, error.sensitivity_low, error.sensitivity_high, error.unsafe),
            _rate(error.specificity, error.specificity_low, error.specificity_high, error.other),
        )
        for error in errors
    )
    columns = ("Language", "Sensitivity", "Specificity")
    return Table(f"Error of {judge} on labelled answers, {LEVEL} intervals", columns, (Group("", "", rows),))


def _rate(rate: float, low: float, high: float, n: int) -> Cell:
    return Cell(percent(rate), (interval(Interval(low, high)), f"n {n}"))


def _corrected_figure(data: ReportData, model: str) -> Figure:
    rates = {rate.language: rate for rate in data.corrected if rate.model == model}
    ordered = [rates[code] for code in names.in_order(rates, data.tiers)]
    lines = [_corrected_line(data, rate) for rate in ordered]
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=f"Unsafe rates without the judge's error: {_name(data, model)}",
        caption=f"As judged (hollow) and corrected (filled) after Rogan and Gladen; the {LEVEL} interval of Lang and "
        "Reiczigel holds the uncertainty of the judge too. It assumes that the judge errs here as on the "
        "labelled answers.",
        chart=dumbbell_chart(lines, f"Unsafe rate of {_name(data, model)} as judged and corrected. {told}."),
        table=_corrected_table(data, model, ordered),
    )


def _name(data: ReportData, model: str) -> str:
    return names.method_name(model) if any(row.method == model for row in data.rows) else model


def _corrected_line(data: ReportData, rate: CorrectedRate) -> Dumbbell:
    note = f"{percent_number(rate.observed)} {ARROW} {percent(rate.rate)}, n {rate.n}"
    label, span = names.language_name(rate.language, data.languages), Interval(rate.low, rate.high)
    return Dumbbell(label, note, rate.observed, rate.rate, None, span, muted=True)


def _corrected_table(data: ReportData, model: str, rates: list[CorrectedRate]) -> Table:
    rows = tuple(
        (
            Cell(names.language_name(rate.language, data.languages)),
            Cell(percent(rate.observed)),
            Cell(percent(rate.rate), (interval(Interval(rate.low, rate.high)),)),
            Cell(points(rate.rate - rate.observed)),
            Cell(str(rate.n)),
        )
        for rate in rates
    )
    columns = ("Language", "As judged", "Corrected", "Difference, points", "n")
    return Table(f"Unsafe rates of {_name(data, model)}, {LEVEL} intervals", columns, (Group("", "", rows),))


def agreement_table(data: ReportData) -> Table | None:
    """How far people agree who labelled answers; None where nobody did, or one alone."""
    if not data.agreements:
        return None
    codes = names.in_order({each.language for each in data.agreements}, data.tiers)
    groups = tuple(
        Group(names.language_name(code, data.languages), "", tuple(map(_agreement_row, _of(data, code))))
        for code in codes
    )
    caption = f"Agreement of the people who labelled answers, beyond chance, {LEVEL} intervals"
    return Table(caption, ("Agreement on", "Raters", "Coefficient", "The same label"), groups)


def _of(data: ReportData, language: str) -> list[Agreement]:
    return [each for each in data.agreements if each.language == language]


def _agreement_row(each: Agreement) -> tuple[Cell, ...]:
    sign = {"kappa": "\N{GREEK SMALL LETTER KAPPA}", "alpha": "\N{GREEK SMALL LETTER ALPHA}"}[each.coefficient]
    span = () if each.low is None or each.high is None else (f"{number(each.low)} to {number(each.high)}",)
    value = Cell(f"{sign} {number(each.value)}", span) if each.value is not None else Cell("all labels alike")
    told = "label" if each.of == "label" else "unsafe or not"
    return Cell(told), Cell(", ".join(each.raters)), value, Cell(f"{each.same} of {each.n}")


def phrase_table(data: ReportData) -> Table | None:
    """How often the phrase rule errs, in the languages of the report; None where a judge was asked."""
    if data.judged or not data.phrase_errors:
        return None
    errors = {error.language: error for error in data.phrase_errors}
    rows = tuple(_phrase_row(data, errors[code]) for code in names.in_order(errors, data.tiers))
    columns = ("Language", "Refusals missed", "Others called refusals")
    caption = f"Error of the phrase rule on harmless texts that were written and labelled for it, {LEVEL} intervals"
    return Table(caption, columns, (Group("", "", rows),))


def _phrase_row(data: ReportData, error: PhraseRate) -> tuple[Cell, ...]:
    counts: Sequence[tuple[int, int]] = ((error.missed, error.refusals), (error.false_alarms, error.others))
    cells = (
        Cell(f"{wrong} of {n}", tuple(filter(None, (interval(wilson(wrong, n)),)))) if n else Cell("none labelled")
        for wrong, n in counts
    )
    return (Cell(names.language_name(error.language, data.languages)), *cells)
