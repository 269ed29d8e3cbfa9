"""The first screen: the numbers beside the verdict, and the three charts under it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from polysafe.findings import names
from polysafe.findings.contests import ABILITY
from polysafe.findings.data import ReportData
from polysafe.findings.gaps import gap_changes, model_gaps, pivot_name
from polysafe.findings.summary import Change, Scope, headline_method, mean_change, mean_of, mean_of_intervals, summarise
from polysafe.findings.verdict import ABILITY_LOSS, OVER_REFUSAL_RISE
from polysafe.report.charts.axis import axis_of
from polysafe.report.charts.figure import Figure, Tile
from polysafe.report.charts.figures import Dumbbell, dumbbell_chart
from polysafe.report.charts.gap_figures import gap_change_figure, model_gap_figure
from polysafe.report.sections.numbers import number_figures
from polysafe.report.sections.unsafe import answers_figure, repair_figures
from polysafe.report.tables import ability_table, audit_table, safety_table
from polysafe.stats.gaps import POOLED
from polysafe.stats.intervals import Interval
from polysafe.stats.rows import RateRow, Row
from polysafe.text import readable as text
from polysafe.text.readable import LEVEL, gap_interval, interval, percent, points, sized

_FIRST = ("unsafe", "over_refusal")
_LEAST = 0.25
_AFTER = ("refused", "safe", "invalid", "wrong_language", "unparsed")


def tiles(data: ReportData) -> list[Tile]:
    """The means that the verdict rests on: those of the headline method, or without any, of the audited model."""
    method = headline_method(data)
    if method is not None:
        return _edit_tiles(data, method)
    return _audit_tiles(data, data.audits[0].model) if data.audits and not data.rows else []


def first_figures(data: ReportData) -> list[Figure]:
    """Gap, over-refusal and ability by language, as far as they were measured."""
    method = headline_method(data)
    if method is not None:
        gap = gap_change_figure(data, method) or next(iter(repair_figures(data, [method])), None)
        figures = [gap, _over_refusal(data, method), _ability(data, method)]
    elif data.audits and not data.rows:
        model = data.audits[0].model
        figures = [model_gap_figure(data, model), answers_figure(data), _audit_rates(data, model, "over_refusal")]
        if not data.judged:
            figures = [_audit_rates(data, model, "refused"), *number_figures(data, "odds"), figures[-1]][:3]
    else:
        figures = []
    return [figure for figure in figures if figure is not None]


def _edit_tiles(data: ReportData, method: str) -> list[Tile]:
    scope = Scope.of(data)
    summary = summarise(data, method, scope)
    gap = summary.gap
    shown = [] if gap is None else [_gap_tile(data, gap, gap_changes(data, method)[0].after.pivot)]
    ability = summary.capability
    shown += [_tile(metric, summary.metrics[metric]) for metric in _FIRST if metric in summary.metrics]
    if ability is not None:
        spans = (text.change(ability.before, ability.after), gap_interval(ability.interval))
        note = ", ".join(filter(None, (*spans, sized(ability.size, ability.worth))))
        shown.append(Tile("Ability", f"{points(ability.difference)} points", note))
    same = summary.metrics.get("safe") == summary.metrics.get("refused")  # an exact judge: only a refusal is safe
    after = [metric for metric in _AFTER if metric in summary.metrics and not (metric == "safe" and same)]
    return shown + [_tile(metric, summary.metrics[metric]) for metric in after] + _unmeasured(data)


def _gap_tile(data: ReportData, gap: Change, pivot: str) -> Tile:
    spans = [gap_interval(span) for span in (gap.before_interval, gap.after_interval)]
    ends = f" {text.ARROW} ".join(spans) if all(spans) else ""
    note = ", ".join(filter(None, (ends, f"n {gap.size}")))
    return Tile(f"Gap to {pivot_name(data, pivot)}", f"{points(gap.before)} {text.ARROW} {points(gap.after)}", note)


def _tile(metric: str, change: Change) -> Tile:
    ends = text.interval_change(change.before_interval, change.after_interval)
    note = ", ".join(filter(None, (ends, sized(change.size, change.worth))))
    return Tile(names.metric_name(metric), text.change(change.before, change.after), note)


def _audit_tiles(data: ReportData, model: str) -> list[Tile]:
    """The widest gap, then means over the languages in scope, with the pivot's rate beside them."""
    gaps = [gap for gap in model_gaps(data, model) if gap.language != POOLED and gap.difference is not None]
    shown = []
    if gaps:
        widest = max(gaps, key=lambda gap: gap.difference or 0.0)
        note = ", ".join(filter(None, (gap_interval(widest.interval), sized(widest.n, widest.n))))
        name = f"Widest gap to {pivot_name(data, widest.pivot)}: {pivot_name(data, widest.language)}"
        shown.append(Tile(name, f"{points(widest.difference)} points", note))
    scope = Scope.of(data)
    for metric in (*_FIRST, *_AFTER):
        rows = [r for r in data.of_model(model, metric) if r.language in scope.languages]
        measured = [row for row in rows if row.rate is not None]
        shown += _mean_tile(data, model, metric, measured, scope)
        if metric == "unsafe" and not measured and (spans := [row.interval for row in rows if row.interval]):
            possible = interval(Interval(min(low for low, _ in spans), max(high for _, high in spans)))
            shown.append(Tile(names.metric_name(metric), "not measured", f"possible {possible}"))
    return _unmeasured(data) + shown


def _unmeasured(data: ReportData) -> list[Tile]:
    return [] if data.judged else [Tile("Unsafe", "not measured", "nobody judged")]


def _mean_tile(data: ReportData, model: str, metric: str, rows: Sequence[RateRow], scope: Scope) -> list[Tile]:
    if not rows:
        return []
    mean = sum(row.rate or 0.0 for row in rows) / len(rows)
    codes = {row.language for row in rows}
    known = [m for m in data.audit_means if (m.model, m.metric, set(m.languages)) == (model, metric, codes)]
    span = known[0].interval if known else mean_of_intervals([row.interval for row in rows])
    pivot = names.pivot_of(data.tiers)
    beside = [r for r in data.audits if (r.model, r.language, r.metric) == (model, pivot, metric)]
    notes = [interval(span), f"n {sum(row.n for row in rows)}"]
    notes += [f"{pivot_name(data, row.language)} {percent(row.rate)}" for row in beside if scope.kind != "evaluated"]
    where = rows[0].language if len(rows) == 1 else f"mean of {len(rows)} {scope.kind}"
    name = f"{names.metric_name(metric)}, {where}"
    return [Tile(name, percent(mean), ", ".join(filter(None, notes)))]


def _over_refusal(data: ReportData, method: str) -> Figure | None:
    rows = {r.language: r for r in data.of_method(method, "over_refusal")}
    lines = _lines(data, rows, OVER_REFUSAL_RISE)
    if not lines:
        return None
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    table = safety_table(data, [method], f"Over-refusal of {names.method_name(method)}", ["over_refusal"])
    assert table is not None
    return Figure(
        heading="Over-refusal",
        caption=f"Harmless requests that were refused, before (hollow) and after (filled), {LEVEL} intervals; "
        f"grey: moved by at most {100 * OVER_REFUSAL_RISE:.0f} points.",
        chart=_small_rates(lines, f"Over-refusal before and after, by language. {told}."),
        table=table,
    )


def _small_rates(lines: Sequence[Dumbbell], alternative: str) -> Markup:
    """Rates that are often near zero, on an axis that ends where they do, yet not below a quarter."""
    ends = [end for line in lines for span in (line.before_interval, line.after_interval) if span for end in span]
    rates = [rate for line in lines for rate in (line.before, line.after) if rate is not None]
    return dumbbell_chart(lines, alternative, axis=axis_of([_LEAST, *rates, *ends]))


def _ability(data: ReportData, method: str) -> Figure | None:
    mine = [r for r in data.of_method(method) if r.metric.startswith(names.CAPABILITY)]
    codes = dict.fromkeys(row.language for row in mine)
    shifts = mean_of(data, method, ABILITY)
    means = {code: mean_change([row for row in mine if row.language == code], shifts) for code in codes}
    lines = _lines(data, means, ABILITY_LOSS, rise_is_good=True)
    table = ability_table(data, [method])
    if not lines or table is None:
        return None
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    tasks = ", ".join(dict.fromkeys(names.metric_name(row.metric) for row in mine))
    return Figure(
        heading="Ability",
        caption=f"Mean over tasks ({tasks}), before (hollow) and after (filled), {LEVEL} intervals; grey: moved by "
        f"at most {100 * ABILITY_LOSS:.0f} points.",
        chart=dumbbell_chart(lines, f"Mean ability before and after, by language. {told}."),
        table=table,
    )


def _lines(
    data: ReportData, changes: Mapping[str, Row | Change | None], tolerated: float, *, rise_is_good: bool = False
) -> list[Dumbbell]:
    """One line per language; a change that the verdict tolerates is drawn in grey."""
    lines = []
    for code in names.in_order(changes, data.tiers):
        change = changes[code]
        if change is None or change.before is None or change.after is None:
            continue
        items = change.n if isinstance(change, Row) else sum(change.items)
        note = f"{text.change(change.before, change.after)}, n {items}"
        label = names.language_name(code, data.languages)
        spans = change.before_interval, change.after_interval
        small = abs(change.after - change.before) <= tolerated
        lines.append(Dumbbell(label, note, change.before, change.after, *spans, small, rise_is_good))
    return lines


def _audit_rates(data: ReportData, model: str, metric: str) -> Figure | None:
    """One metric of an audited model as dots with intervals."""
    rows = {row.language: row for row in data.of_model(model, metric)}
    lines = [
        Dumbbell(
            names.language_name(code, data.languages),
            f"{percent(row.rate)}, n {row.n}",
            None,
            row.rate,
            None,
            row.interval,
            muted=True,
        )
        for code in names.in_order(rows, data.tiers)
        if (row := rows[code]).rate is not None
    ]
    if not lines:
        return None
    told = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=names.metric_name(metric),
        caption=f"{'Harmless' if metric == 'over_refusal' else 'Harmful'} requests that were refused; "
        f"{LEVEL} intervals.",
        chart=_small_rates(lines, f"{names.metric_name(metric)} by language. {told}."),
        table=audit_table(data),
    )
