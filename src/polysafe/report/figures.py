"""Charts as inline SVG, drawn with matplotlib.

A chart is drawn at the width of a phone and laid out in lines: a line of text, and under it a track from 0 to
100 % over the full width. Colours are roles that the page's style sheet resolves, so one drawing serves
light, dark and print; text stays text, in the page's own font. The same data gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from polysafe.report.text import MAX_TEXT, clip, shorten, visible
from polysafe.stats.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Align = Literal["left", "center", "right"]

WIDTH = 340.0
_MARGIN = 8.0
_LINE = 48.0
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
# Mean widths of a character in the two sizes of a heading, for fonts of common width.
_NOTE_CHARACTER, _LABEL_CHARACTER = 5.9, 7.2
_ROLES = ("ink", "muted", "rule", "unsafe", "refused", "neither", "before", "paper")


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
    """One rate before and after.

    Attributes:
        label: Name of the line.
        note: Text at its right end.
        before: Rate before, 0 … 1.
        after: Rate after.
        before_interval: 95 % interval of it.
        after_interval: 95 % interval of it.
        muted: Drawn in grey: a baseline or control beside the methods.
    """

    label: str
    note: str
    before: float
    after: float
    before_interval: Interval | None
    after_interval: Interval | None
    muted: bool = False


def bar_chart(bars: Sequence[Bar], alternative: str) -> Markup:
    """Stacked bars: unsafe with its interval, then refused; what is left is neither.

    Args:
        bars: One per line, from top to bottom.
        alternative: What the picture shows, for those who do not see it.
    """
    sheet = _Sheet(len(bars))
    for line, bar in enumerate(bars):
        y = sheet.heading(line, bar.label, bar.note)
        refused = bar.refused or 0.0
        sheet.box(0.0, 1.0, y, "neither" if bar.refused is not None else "rule")
        sheet.box(0.0, bar.unsafe, y, "unsafe")
        sheet.box(1.0 - refused, 1.0, y, "refused")
        if bar.interval is not None:
            sheet.whisker(bar.interval, y, "paper", width=4.0)
            sheet.whisker(bar.interval, y, "ink")
    return sheet.svg(alternative)


def dumbbell_chart(lines: Sequence[Dumbbell], alternative: str, reference: float | None = None) -> Markup:
    """Rates before (hollow) and after (filled) with their intervals, joined by a band.

    Args:
        lines: One per line, from top to bottom.
        alternative: What the picture shows, for those who do not see it.
        reference: A rate to mark through all lines, such as that of the pivot language.
    """
    sheet = _Sheet(len(lines))
    for number, line in enumerate(lines):
        y = sheet.heading(number, line.label, line.note)
        colour = _direction(line)
        sheet.track(y)
        if reference is not None:
            sheet.mark(reference, y)
        sheet.join(line.before, line.after, y, colour)
        for interval, role in ((line.before_interval, "before"), (line.after_interval, colour)):
            if interval is not None:
                sheet.whisker(interval, y, role)
        sheet.dot(line.before, y, "before", hollow=True)
        sheet.dot(line.after, y, colour, hollow=False)
    return sheet.svg(alternative)


def _direction(line: Dumbbell) -> str:
    if line.muted or line.after == line.before:
        return "muted"
    return "refused" if line.after < line.before else "unsafe"


class _Sheet:
    """A drawing surface whose unit is a CSS pixel, with y growing downwards."""

    def __init__(self, lines: int) -> None:
        from matplotlib.figure import Figure

        self._height = lines * _LINE + 22.0
        self._figure: Figure = Figure(figsize=(WIDTH / 72, self._height / 72))
        self._axes: Axes = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._axes.set(xlim=(0.0, WIDTH), ylim=(self._height, 0.0))
        self._axes.set_axis_off()
        self._texts: list[str] = []
        self._scale()

    def heading(self, line: int, label: str, note: str) -> float:
        """Writes the text of a line and returns the height of its track."""
        top = line * _LINE + 13.0
        note = shorten(note, 46)
        room = (WIDTH - 2 * _MARGIN - _NOTE_CHARACTER * len(note)) / _LABEL_CHARACTER
        self._text(_MARGIN, top, shorten(label, int(room)), "ink", 12.5, "left", bold=True)
        self._text(WIDTH - _MARGIN, top, note, "muted", 11.5, "right")
        y = top + 18.0
        for rate in _GRID:
            self._line((rate, rate), (y - 9.0, y + 9.0), "rule", 0.8, depth=0)
        return y

    def track(self, y: float) -> None:
        self._line((0.0, 1.0), (y, y), "rule", 1.0)

    def join(self, before: float, after: float, y: float, role: str) -> None:
        self._line((before, after), (y, y), role, 6.0, opacity=0.3)

    def whisker(self, interval: Interval, y: float, role: str, width: float = 1.5) -> None:
        self._line(interval, (y, y), role, width)
        for end in interval:
            self._line((end, end), (y - 3.5 - width / 2, y + 3.5 + width / 2), role, width)

    def mark(self, at: float, y: float) -> None:
        self._line((at, at), (y - 10.0, y + 10.0), "refused", 1.4, dashes=(0, (2, 1.5)))

    def box(self, start: float, end: float, y: float, role: str) -> None:
        from matplotlib.patches import Rectangle

        if end > start:
            shape = Rectangle((_x(start), y - 7.0), _x(end) - _x(start), 14.0, color=_colour(role), linewidth=0)
            self._axes.add_patch(shape).set_clip_on(False)

    def dot(self, at: float, y: float, role: str, *, hollow: bool) -> None:
        from matplotlib.patches import Circle

        fill = _colour("paper" if hollow else role)
        shape = Circle((_x(at), y), 5.0, facecolor=fill, edgecolor=_colour(role), linewidth=2.0, zorder=3)
        self._axes.add_patch(shape).set_clip_on(False)

    def svg(self, alternative: str) -> Markup:
        import matplotlib as mpl

        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "polysafe"}):
            self._figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
        opening = (
            f'<svg class="chart" viewBox="0 0 {WIDTH:g} {self._height:g}" role="img" '
            f'aria-label="{escape(visible(clip(alternative, MAX_TEXT)))}">'
        )
        return _embed(buffer.getvalue(), opening, self._texts)

    def _scale(self) -> None:
        for rate in _GRID:
            align: Align = "left" if rate == 0 else "right" if rate == 1 else "center"
            label = f"{100 * rate:.0f}\N{NARROW NO-BREAK SPACE}%"
            self._text(_x(rate), self._height - 7.0, label, "muted", 10.5, align)

    def _line(
        self,
        rates: tuple[float, float],
        heights: tuple[float, float],
        role: str,
        width: float,
        *,
        opacity: float = 1.0,
        depth: int = 2,
        dashes: tuple[float, tuple[float, float]] | str = "solid",
    ) -> None:
        self._axes.plot(
            [_x(rate) for rate in rates],
            heights,
            color=_colour(role),
            linewidth=width,
            alpha=opacity,
            zorder=depth,
            linestyle=dashes,
            solid_capstyle="butt",
            clip_on=False,
        )

    def _text(self, x: float, y: float, text: str, role: str, size: float, align: Align, *, bold: bool = False) -> None:
        # matplotlib would read $…$ as mathematics and warn about scripts that its font lacks. It only ever sees
        # the number of a text; the text itself is put in, escaped, when the drawing is embedded.
        place = f"text{len(self._texts)}"
        self._texts.append(text)
        self._axes.text(
            x,
            y,
            place,
            color=_colour(role),
            fontsize=size,
            horizontalalignment=align,
            verticalalignment="center_baseline",
            fontweight="bold" if bold else "normal",
        )


def _x(rate: float) -> float:
    return _MARGIN + rate * (WIDTH - 2 * _MARGIN)


def _colour(role: str) -> str:
    """A stand-in colour that names a role; `_embed` turns it into the style sheet's variable."""
    return f"#0a0b{_ROLES.index(role):02x}"


def _embed(svg: str, opening: str, texts: Sequence[str]) -> Markup:
    """Turns a stand-alone SVG file into an element of the page, without ids, fonts and styles of its own."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<defs>.*?</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[^"]*"| transform="rotate\(-0 [^"]*"|font-family: [^;]*; ', "", body)
    body = re.sub(r"#0a0b([0-9a-f]{2})", lambda found: f"var(--{_ROLES[int(found[1], 16)]})", body)
    body = re.sub(r">text(\d+)<", lambda found: f">{escape(visible(texts[int(found[1])]))}<", body)
    return Markup(opening + re.sub(r"\s*\n\s*", "\n", body))  # noqa: S704  every text in it was escaped above
