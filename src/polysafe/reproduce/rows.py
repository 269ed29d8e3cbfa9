"""Rows of a result against those of its repetition."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from polysafe.reproduce.finding import Finding, Severity
from polysafe.stats.intervals import Interval
from polysafe.stats.rows import Row

NOISE = 1e-9
"""Relative difference that two libraries may make of the same counts."""
LEVEL = 0.05
"""An adjusted p-value on the other side of it is another claim."""

Cell = tuple[str, str, str]


def compare_rows(recorded: Sequence[Row], found: Sequence[Row]) -> Iterator[Finding]:
    """Differences between two lists of rows, whatever their order.

    A rate that leaves its recorded 95 % interval, another number of items and an adjusted p-value that changes sides of
    5 % are differences of the result; anything smaller is drift.
    """
    old, new = ({_cell(row): row for row in rows} for rows in (recorded, found))
    for cell in dict.fromkeys((*old, *new)):
        what = f"row {', '.join(cell)}"
        if cell not in new:
            yield Finding(Severity.RESULT, what, "there", "missing")
        elif cell not in old:
            yield Finding(Severity.RESULT, what, "missing", "there")
        else:
            yield from _compare(what, old[cell], new[cell])


def _cell(row: Row) -> Cell:
    return row.method, row.language, row.metric


def _compare(what: str, old: Row, new: Row) -> Iterator[Finding]:
    if old.n != new.n:
        yield Finding(Severity.RESULT, f"{what}: n", str(old.n), str(new.n))
        return
    yield from _rate(f"{what}: before", (old.before, old.before_interval), (new.before, new.before_interval))
    yield from _rate(f"{what}: after", (old.after, old.after_interval), (new.after, new.after_interval))
    if old.p_value != new.p_value:  # it moves with the items that changed, which need not change a rate
        undefined = None in (old.p_value, new.p_value)
        severity = Severity.RESULT if undefined else Severity.DRIFT
        yield Finding(severity, f"{what}: p", _number(old.p_value), _number(new.p_value))
    if old.p_adjusted != new.p_adjusted:
        yield Finding(
            _claim(old.p_adjusted, new.p_adjusted),
            f"{what}: adjusted p",
            _number(old.p_adjusted),
            _number(new.p_adjusted),
        )


Measured = tuple[float | None, Interval | None]


def _rate(what: str, old: Measured, new: Measured) -> Iterator[Finding]:
    (rate, interval), (again, other) = old, new
    shown = _measured(old), _measured(new)
    if _same(rate, again):
        ends = all(_same(*pair) for pair in zip(_ends(interval), _ends(other), strict=True))
        if old != new:  # the same rate of as many items has another interval only if it is computed otherwise
            yield Finding(Severity.DRIFT if ends else Severity.RESULT, what, *shown)
        return
    inside = interval is not None and again is not None and interval.low <= again <= interval.high
    yield Finding(Severity.DRIFT if inside else Severity.RESULT, what, *shown)


def _claim(old: float | None, new: float | None) -> Severity:
    if old is None or new is None:
        return Severity.RESULT
    return Severity.RESULT if (old <= LEVEL) != (new <= LEVEL) else Severity.DRIFT


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=NOISE, abs_tol=NOISE)


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _measured(value: Measured) -> str:
    rate, interval = value
    span = "" if interval is None else f" [{_number(interval.low)}, {_number(interval.high)}]"
    return f"{_number(rate)}{span}"


def _number(value: float | None) -> str:
    """Every digit that tells two numbers apart."""
    return "not measured" if value is None else repr(value)
