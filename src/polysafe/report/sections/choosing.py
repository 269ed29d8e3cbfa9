"""What was tried on validation prompts, what was taken, and what that does on held-out ones."""

from __future__ import annotations

from collections.abc import Iterator

from polysafe.findings import names
from polysafe.findings.choosing import Choosing, Gain, Tried
from polysafe.findings.data import ReportData
from polysafe.report.tables import Cell, Group, Table
from polysafe.stats.intervals import Interval
from polysafe.text.readable import (
    ARROW,
    LEVEL,
    NOTHING,
    change,
    gap_interval,
    interval_change,
    percent,
    points,
    signed,
)

_COSTS = {
    "over_refusal": "over-refusal",
    "helpful": "harmless requests not answered",
    "kl": "KL of harmless answers",
    "answers": "harmless answers, log-probability lost",
}
_UNITS = {"kl": "nats", "answers": "nats"}
SIZE = "size"
COLUMNS = (
    "Edit",
    "Refusals of harmful validation prompts",
    "Cost there, means over languages",
    "Unsafe, held-out prompts",
)


def choosing_table(data: ReportData) -> Table | None:
    """A group for every model that something was chosen for; None where nothing was."""
    if not data.choosing:
        return None
    groups = tuple(
        Group(names.language_name(each.model, data.languages), "", tuple(_row(one, each, data) for one in each.tried))
        for each in data.choosing
    )
    return Table(f"Tried on validation prompts; {LEVEL} intervals of the change, paired by prompt", COLUMNS, groups)


def choosing_sentences(data: ReportData) -> list[str]:
    """What is taken for every model, and why."""
    return [_sentence(each, data) for each in data.choosing]


def _sentence(each: Choosing, data: ReportData) -> str:
    model, taken = names.language_name(each.model, data.languages), each.taken
    what = "nothing" if taken is None else names.method_name(taken.name)
    return f"{model}: {what}. {each.reason[:1].upper()}{each.reason[1:]}."


def _row(one: Tried, each: Choosing, data: ReportData) -> tuple[Cell, ...]:
    return (
        Cell(names.method_name(one.name), tuple(_said(one, each))),
        _gains(one),
        _costs(one),
        _held_out(one, each, data),
    )


def _said(one: Tried, each: Choosing) -> Iterator[str]:
    if one.taken:
        yield "taken"
    if one.points > 1:
        yield f"best of {one.points} settings"
    if one.verdict and not one.taken and one.verdict != each.reason:
        yield one.verdict


def _gains(one: Tried) -> Cell:
    if not one.gains:
        return Cell(NOTHING)
    told = [_gain(gain) for gain in one.gains]
    if len(told) == 1:
        return Cell(told[0][0], (told[0][1],))
    return Cell(
        "", tuple(f"{gain.language}: {text}; {note}" for gain, (text, note) in zip(one.gains, told, strict=True))
    )


def _gain(gain: Gain) -> tuple[str, str]:
    if gain.counted:
        text = change(gain.before, gain.after)
        return text, f"{gap_interval(Interval(gain.low, gain.high))} points, n {gain.n}"
    text = f"{signed(gain.before)} {ARROW} {signed(gain.after)} log-odds"
    return text, f"{signed(gain.low)} to {signed(gain.high)}, n {gain.n}"


def _costs(one: Tried) -> Cell:
    counted = all(gain.counted for gain in one.gains)
    told = (_cost(metric, value, counted=counted) for metric, value in one.costs.items())
    return Cell("", tuple(told)) if one.costs else Cell(NOTHING)


def _cost(metric: str, value: float, *, counted: bool) -> str:
    """A mean loss in its unit; of answers that were read by log-odds, refusals are no shares."""
    if metric == SIZE:
        return f"weights changed {percent(value)}"
    unit = _UNITS.get(metric) or ("points" if counted else "log-odds")
    shown = points(value) if unit == "points" else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
    return f"{_COSTS.get(metric, metric)} {shown} {unit}"


def _held_out(one: Tried, each: Choosing, data: ReportData) -> Cell:
    """The rows of this page about the same edit: of the model's own language, or of the languages that it is for."""
    own = {each.model} | {gain.language for gain in one.gains}
    rows = [row for row in data.of_method(one.name, "unsafe") if row.language in own]
    if not rows:
        return Cell(NOTHING)

    def told() -> Iterator[str]:
        for row in rows:
            ends = interval_change(row.before_interval, row.after_interval)
            named = f"{row.language}: " if len(rows) > 1 else ""
            yield f"{named}{change(row.before, row.after)} ({ends}), n {row.n}"

    return Cell("", tuple(told()))
