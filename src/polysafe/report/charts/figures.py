"""Charts of rates, one line per language or method.

A chart is drawn at the width of a phone and laid out in lines: a line of text, and under it a track over the full
width, from one end of the axis to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from polysafe.report.charts.axis import SHARES, Axis
from polysafe.report.charts.canvas import MARGIN, WIDTH, Align, Canvas
from polysafe.stats.intervals import Interval
from polysafe.text.readable import shorten

_LINE = 48.0
# Mean widths of a character in the two sizes of a heading, for fonts of common width.
_NOTE_CHARACTER, _LABEL_CHARACTER = 5.9, 7.2


@dataclass(frozen=True)
class Bar:
    """What became of the harmful requests of one language: shares that add up to at most 1.

    Attributes:
        label: Name of the line.
        note: Text at its right end.
        unsafe: Share of unsafe answers.
        interval: 95 % interval of it.
        refused: Share of refusals, or None where that was not measured.
    """

    label: str
    note: str
    unsafe: float
    interval: Interval | None
    refused: float | None


@dataclass(frozen=True)
class Dumbbell:
    """One rate, or one difference of rates, before and after.

    Attributes:
        label: Name of the line.
        note: Text at its right end.
        before: Value before; None where there is only one value, the one after.
        after: Value after.
        before_interval: 95 % interval of it.
        after_interval: 95 % interval of it.
        muted: Drawn in grey: a baseline or control beside the methods, or a value that is neither good nor bad.
        rise_is_good: Whether higher is better, as for ability.
    """

    label: str
    note: str
    before: float | None
    after: float
    before_interval: Interval | None
    after_interval: Interval | None
    muted: bool = False
    rise_is_good: bool = False


@dataclass(frozen=True)
class Pair:
    """Two rates of one thing that are no change of each other; drawn one above the other.

    Attributes:
        label: Name of the line.
        note: Text at its right end.
        upper: First rate, drawn hollow.
        lower: Second rate, drawn filled.
        upper_interval: 95 % interval of the first.
        lower_interval: 95 % interval of the second.
    """

    label: str
    note: str
    upper: float
    lower: float
    upper_interval: Interval
    lower_interval: Interval


def bar_chart(bars: Sequence[Bar], alternative: str) -> Markup:
    """Stacked bars: unsafe with its interval, then refused; what is left is neither.

    Args:
        bars: One per line, from top to bottom.
        alternative: What the picture shows, for those who do not see it.
    """
    sheet = _Sheet(len(bars), SHARES)
    for line, bar in enumerate(bars):
        y = sheet.heading(line, bar.label, bar.note)
        refused = bar.refused or 0.0
        sheet.box(0.0, 1.0, y, "neither" if bar.refused is not None else "rule")
        sheet.box(0.0, bar.unsafe, y, "unsafe")
        sheet.box(1.0 - refused, 1.0, y, "refused")
        if bar.refused is not None:  # grey print and colour-blind eyes see where one part ends
            sheet.seam(bar.unsafe, y)
            sheet.seam(1.0 - refused, y)
        if bar.interval is not None:
            sheet.whisker(bar.interval, y, "paper", width=4.0)
            sheet.whisker(bar.interval, y, "ink")
    return sheet.svg(alternative)


def dumbbell_chart(
    lines: Sequence[Dumbbell], alternative: str, reference: float | None = None, axis: Axis = SHARES
) -> Markup:
    """Values before (hollow) and after (filled) with their intervals, joined by a band.

    Args:
        lines: One per line, from top to bottom.
        alternative: What the picture shows, for those who do not see it.
        reference: A value to mark through all lines, such as the rate of the pivot language.
        axis: Where values lie.
    """
    sheet = _Sheet(len(lines), axis)
    for number, line in enumerate(lines):
        y = sheet.heading(number, line.label, line.note)
        colour = _direction(line)
        sheet.track(y)
        if reference is not None:
            sheet.mark(reference, y)
        if line.before is not None:
            sheet.join(line.before, line.after, y, colour)
        for interval, role in ((line.before_interval, "before"), (line.after_interval, colour)):
            if interval is not None:
                sheet.whisker(interval, y, role)
        if line.before is not None:
            sheet.dot(line.before, y, "before", hollow=True)
        sheet.dot(line.after, y, colour, hollow=False)
    return sheet.svg(alternative)


def pair_chart(lines: Sequence[Pair], alternative: str) -> Markup:
    """Two rates per line with their intervals, the first (hollow) above the second (filled).

    Args:
        lines: One per line, from top to bottom.
        alternative: What the picture shows, for those who do not see it.
    """
    sheet = _Sheet(len(lines), SHARES)
    for number, line in enumerate(lines):
        y = sheet.heading(number, line.label, line.note)
        for at, span, role, height in (
            (line.upper, line.upper_interval, "before", y - 2.5),
            (line.lower, line.lower_interval, "refused", y + 7.0),
        ):
            sheet.whisker(span, height, role)
            sheet.dot(at, height, role, hollow=role == "before", radius=3.5)
    return sheet.svg(alternative)


def _direction(line: Dumbbell) -> str:
    start = 0.0 if line.before is None else line.before
    if line.muted or line.after == start:
        return "muted"
    return "refused" if (line.after > start) == line.rise_is_good else "unsafe"


class _Sheet:
    """A canvas with a track along the axis per line."""

    def __init__(self, lines: int, axis: Axis) -> None:
        self._axis = axis
        self._canvas = Canvas(lines * _LINE + 22.0)
        for tick in axis.ticks:
            align: Align = "left" if tick == axis.low else "right" if tick == axis.high else "center"
            self._canvas.text(self._x(tick), self._canvas.height - 7.0, axis.label(tick), "muted", 10.5, align)

    def heading(self, line: int, label: str, note: str) -> float:
        """Writes the text of a line and returns the height of its track."""
        top = line * _LINE + 13.0
        note = shorten(note, 46)
        room = (WIDTH - 2 * MARGIN - _NOTE_CHARACTER * len(note)) / _LABEL_CHARACTER
        self._canvas.text(MARGIN, top, shorten(label, int(room)), "ink", 12.5, bold=True)
        self._canvas.text(WIDTH - MARGIN, top, note, "muted", 11.5, "right")
        y = top + 18.0
        self._bars(self._axis.ticks, (y - 9.0, y + 9.0), "rule", 0.8, depth=0)
        return y

    def track(self, y: float) -> None:
        self._span((self._axis.low, self._axis.high), (y, y), "rule", 1.0)

    def join(self, before: float, after: float, y: float, role: str) -> None:
        self._span((before, after), (y, y), role, 6.0, opacity=0.3)

    def whisker(self, interval: Interval, y: float, role: str, width: float = 1.5) -> None:
        self._span(interval, (y, y), role, width)
        self._bars(interval, (y - 3.5 - width / 2, y + 3.5 + width / 2), role, width)

    def mark(self, at: float, y: float) -> None:
        self._span((at, at), (y - 10.0, y + 10.0), "refused", 1.4, dashes=(0, (2, 1.5)))

    def seam(self, at: float, y: float) -> None:
        if 0.0 < at < 1.0:
            self._span((at, at), (y - 7.0, y + 7.0), "paper", 1.5)

    def box(self, start: float, end: float, y: float, role: str) -> None:
        self._canvas.boxes([(self._x(start), y - 7.0, self._x(end) - self._x(start), 14.0)], role)

    def dot(self, at: float, y: float, role: str, *, hollow: bool, radius: float = 5.0) -> None:
        self._canvas.circle(self._x(at), y, role, hollow=hollow, radius=radius)

    def svg(self, alternative: str) -> Markup:
        return self._canvas.svg(alternative)

    def _span(
        self,
        values: tuple[float, float],
        heights: tuple[float, float],
        role: str,
        width: float,
        *,
        opacity: float = 1.0,
        depth: int = 2,
        dashes: tuple[float, tuple[float, float]] | None = None,
    ) -> None:
        xs = [self._x(value) for value in values]
        self._canvas.line(xs, heights, role, width, opacity=opacity, depth=depth, dashes=dashes)

    def _bars(
        self, values: Sequence[float], heights: tuple[float, float], role: str, width: float, *, depth: int = 2
    ) -> None:
        """Upright lines of one height, as one shape."""
        xs = [x for value in values for x in (self._x(value), self._x(value), math.nan)]
        self._canvas.line(xs, [*heights, math.nan] * len(values), role, width, depth=depth)

    def _x(self, value: float) -> float:
        return MARGIN + self._axis.share(value) * (WIDTH - 2 * MARGIN)
