"""Methods beside each other: safety against ability, and the means over the languages in scope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup

from polysafe.report import names, text
from polysafe.report.axis import Axis, axis_of
from polysafe.report.canvas import WIDTH, Canvas
from polysafe.report.data import ReportData
from polysafe.report.figure import Figure
from polysafe.report.figures import Dumbbell, dumbbell_chart
from polysafe.report.outcome import Kind
from polysafe.report.placement import Box, place_labels
from polysafe.report.summary import Change, MethodSummary, Scope, methods_of, summarise
from polysafe.report.tables import Cell, Group, Table, comparison_table
from polysafe.report.text import LEVEL, NOTHING, gap_interval, interval, percent, points
from polysafe.report.unsafe import pivot_rate
from polysafe.report.verdict import OVER_REFUSAL_RISE, classify
from polysafe.stats.intervals import Interval

_SHIPPABLE = ("method", "baseline", "published")


@dataclass(frozen=True)
class Point:
    """A method on the plane of safety and ability.

    Attributes:
        number: Its number in the chart, from 1; None for what stands beside for comparison alone.
        name: Its name in words.
        kind: What `names.method_kind` says.
        unsafe: Mean unsafe rate after the edit, 0 … 1.
        unsafe_interval: Interval of it.
        ability: Mean change of ability, -1 … 1.
        ability_interval: Interval of it, as of two independent rates.
        over_refusal: Mean change of over-refusal; None where it was not measured.
        broken: Whether broken answers took the place of the unsafe ones.
    """

    number: int | None
    name: str
    kind: str
    unsafe: float
    unsafe_interval: Interval | None
    ability: float
    ability_interval: Interval | None
    over_refusal: float | None
    broken: bool

    @property
    def label(self) -> str:
        """Its number, where it has one, and its name."""
        return self.name if self.number is None else f"{self.number} {self.name}"

    @property
    def costly(self) -> bool:
        """Whether harmless requests pay for it."""
        return self.over_refusal is not None and self.over_refusal > OVER_REFUSAL_RISE

    @property
    def eligible(self) -> bool:
        """Whether it can be on the front: a control is nothing to ship, and a broken model is not a safe one."""
        return self.kind in _SHIPPABLE and not self.broken


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The eligible points that no eligible one beats: none is as safe and as able, and better in one of the two."""
    eligible = [point for point in points if point.eligible]
    front = [p for p in eligible if not any(_beats(other, p) for other in eligible)]
    return sorted(front, key=lambda point: (point.unsafe, -point.ability))


def _beats(one: Point, other: Point) -> bool:
    as_good = one.unsafe <= other.unsafe and one.ability >= other.ability
    return as_good and (one.unsafe, one.ability) != (other.unsafe, other.ability)


def tradeoff_points(data: ReportData) -> list[Point]:
    """All methods whose safety and ability were measured in the languages in scope."""
    scope = Scope.of(data)
    summaries = [summarise(data.rows, method, scope) for method in methods_of(data.rows)]
    known = [(s, s.unsafe, s.capability) for s in summaries if s.unsafe is not None and s.capability is not None]
    numbers = count(1)
    return [_point(next(numbers) if _can_ship(s) else None, s, unsafe, ability) for s, unsafe, ability in known]


def _can_ship(summary: MethodSummary) -> bool:
    return names.method_kind(summary.method) in _SHIPPABLE


def _point(number: int | None, summary: MethodSummary, unsafe: Change, ability: Change) -> Point:
    refusal = summary.metrics.get("over_refusal")
    return Point(
        number=number,
        name=names.method_name(summary.method),
        kind=names.method_kind(summary.method),
        unsafe=unsafe.after,
        unsafe_interval=unsafe.after_interval,
        ability=ability.difference,
        ability_interval=unpaired(ability),
        over_refusal=None if refusal is None else refusal.difference,
        broken=classify(summary) is Kind.BROKEN,
    )


def unpaired(change: Change) -> Interval | None:
    """An interval of after minus before from the intervals of both, as if they were independent.

    The squares of the distances to the near ends add up (Newcombe 1998, method 10). The items are the same before and
    after, so their errors go together and the true interval is narrower.
    """
    first, second = change.before_interval, change.after_interval
    if first is None or second is None:
        return None
    down = math.hypot(change.after - second.low, first.high - change.before)
    up = math.hypot(second.high - change.after, change.before - first.low)
    return Interval(change.difference - down, change.difference + up)


def tradeoff(data: ReportData) -> Figure | None:
    """Safety against ability; None with fewer than two methods to compare."""
    points_, scope = tradeoff_points(data), Scope.of(data)
    if len(points_) < 2 or not any(point.number for point in points_):
        return None
    front = pareto_front(points_)
    told = "; ".join(_told(point, front) for point in points_)
    over = ", ".join(scope.languages)
    return Figure(
        heading="Safety against ability",
        caption=_caption(data, points_, front),
        chart=_scatter(points_, front, f"Mean unsafe rate after the edit against ability change over {over}. {told}."),
        table=_table(points_, front),
        key=tuple(point.name for point in points_ if point.number is not None),
    )


def _told(point: Point, front: Sequence[Point]) -> str:
    words = [f"{point.label}: unsafe {percent(point.unsafe)}, ability {points(point.ability)} points"]
    if point in front:
        words.append("on the Pareto front")
    if point.broken:
        words.append("answers broke")
    if point.costly:
        words.append(f"over-refusal {points(point.over_refusal)} points")
    return ", ".join(words)


def _caption(data: ReportData, drawn: Sequence[Point], front: Sequence[Point]) -> str:
    listed = ", ".join(f"{p.label} (unsafe {percent(p.unsafe)}, ability {points(p.ability)} points)" for p in front)
    sentences = [f"On the Pareto front, which nothing beats in both safety and ability: {listed}."] if front else []
    broken = [point.label for point in drawn if point.broken]
    if broken:
        sentences.append(f"Not on the front whatever its place, because answers broke: {', '.join(broken)}.")
    names_drawn = {point.name for point in drawn}
    missing = [name for m in methods_of(data.rows) if (name := names.method_name(m)) not in names_drawn]
    if missing:
        sentences.append(f"Not drawn, safety or ability was not measured: {', '.join(missing)}.")
    beyond = [point for point in drawn if point.unsafe > _across(drawn).high]
    if beyond:
        listed = ", ".join(f"{point.label} ({percent(point.unsafe)})" for point in beyond)
        sentences.append(f"Beyond the right end: {listed}.")
    sentences.append(f"Bars are {LEVEL} intervals; that of ability is as if before and after were independent.")
    return " ".join(sentences)


def _table(drawn: Sequence[Point], front: Sequence[Point]) -> Table:
    rows = tuple(
        (
            Cell(point.label, () if point.kind == "method" else (point.kind,)),
            Cell(percent(point.unsafe), _note(interval(point.unsafe_interval))),
            Cell(points(point.ability), _note(gap_interval(point.ability_interval))),
            Cell(NOTHING if point.over_refusal is None else points(point.over_refusal)),
            Cell("yes" if point in front else "no, broken" if point.broken else "no"),
        )
        for point in drawn
    )
    columns = ("Method", "Unsafe after", "Ability change, points", "Over-refusal change, points", "Pareto front")
    return Table("Safety against ability", columns, (Group("", "", rows),))


def _note(span: str) -> tuple[str, ...]:
    return (span,) if span else ()


_ROOM = Box(44.0, 24.0, WIDTH - 44.0 - 16.0, 232.0)
_RADIUS, _FRAME = 4.5, 7.5
_DIGIT, _LABEL_HEIGHT = 6.6, 11.0


def _across(drawn: Sequence[Point]) -> Axis:
    """The axis of unsafe rates: as long as what could be shipped needs it, so that good methods stand apart."""
    shippable = [point for point in drawn if point.number is not None]
    ends = [end for point in shippable for end in (point.unsafe_interval or ())]
    return axis_of([*ends, *(point.unsafe for point in shippable)])


class _Plane:
    """A canvas with unsafe rates from left to right and changes of ability upwards."""

    def __init__(self, drawn: Sequence[Point]) -> None:
        self._across = _across(drawn)
        ends = [end for point in drawn for end in (point.ability_interval or ()) if point.number]
        self._up = axis_of([*ends, *(point.ability for point in drawn)], points=True)
        self._canvas = Canvas(_ROOM.top + _ROOM.height + 40.0)
        self._grid()

    def at(self, unsafe: float, ability: float) -> tuple[float, float]:
        x = _ROOM.left + self._across.share(unsafe) * _ROOM.width
        return x, _ROOM.top + (1.0 - self._up.share(ability)) * _ROOM.height

    def _grid(self) -> None:
        foot = _ROOM.top + _ROOM.height
        for tick in self._across.ticks:
            x, _ = self.at(tick, 0.0)
            self._canvas.line([x, x], [_ROOM.top, foot], "rule", 0.8, depth=0)
            self._canvas.text(x, foot + 11.0, self._across.label(tick), "muted", 10.5, "center")
        for tick in self._up.ticks:
            _, y = self.at(0.0, tick)
            self._canvas.line([_ROOM.left, _ROOM.left + _ROOM.width], [y, y], "rule", 0.8 if tick else 1.6, depth=0)
            self._canvas.text(_ROOM.left - 6.0, y, self._up.label(tick), "muted", 10.5, "right")
        self._canvas.text(_ROOM.left + _ROOM.width, foot + 29.0, "mean unsafe rate after", "muted", 11.5, "right")
        self._canvas.text(8.0, 5.0, "ability change, points", "muted", 11.5)
        self._canvas.text(_ROOM.left, foot + 29.0, "\N{LEFTWARDS ARROW} safer", "muted", 11.5)
        self._canvas.text(_ROOM.left + _ROOM.width, 5.0, "\N{UPWARDS ARROW} abler", "muted", 11.5, "right")

    def staircase(self, front: Sequence[Point]) -> None:
        corners = [self.at(front[0].unsafe, front[0].ability)]
        for point in front[1:]:
            x, y = self.at(point.unsafe, point.ability)
            corners += [(x, corners[-1][1]), (x, y)]
        corners.append((_ROOM.left + _ROOM.width, corners[-1][1]))
        self._canvas.line([x for x, _ in corners], [y for _, y in corners], "ink", 1.3, dashes=(0, (4, 2.5)), depth=1)

    def spans(self, point: Point) -> None:
        if point.number is None:
            return
        x, y = self.at(point.unsafe, point.ability)
        role = _role(point)
        if point.unsafe_interval is not None:
            ends = [self.at(end, point.ability)[0] for end in point.unsafe_interval]
            self._canvas.line(ends, [y, y], role, 1.2, opacity=0.3)
        if point.ability_interval is not None:
            ends = [self.at(point.unsafe, end)[1] for end in point.ability_interval]
            self._canvas.line([x, x], ends, role, 1.2, opacity=0.3)

    def dot(self, point: Point) -> None:
        if point.unsafe > self._across.high:
            return
        x, y = self.at(point.unsafe, point.ability)
        if point.broken:
            for rise in (-_RADIUS, _RADIUS):
                self._canvas.line([x - _RADIUS, x + _RADIUS], [y - rise, y + rise], "unsafe", 2.2, depth=3)
        else:
            self._canvas.circle(x, y, _role(point), hollow=point.kind != "method", radius=_radius(point))
        if point.costly:
            self._canvas.frame(x - _FRAME, y - _FRAME, 2 * _FRAME, 2 * _FRAME, "unsafe", 1.4)

    def numbers(self, drawn: Sequence[Point]) -> None:
        numbered = [point for point in drawn if point.number is not None]
        at = [self.at(point.unsafe, point.ability) for point in numbered]
        sizes = [(_DIGIT * len(str(point.number)) + 2.0, _LABEL_HEIGHT) for point in numbered]
        room = Box(_ROOM.left, _ROOM.top - 6.0, _ROOM.width + 8.0, _ROOM.height + 10.0)
        radii = [(_FRAME if point.costly else _RADIUS) + 1.5 for point in numbered]
        for point, (x, y), box in zip(numbered, at, place_labels(at, sizes, radii, room), strict=True):
            across, down = box.centre
            if math.hypot(across - x, down - y) > 4.0 * _RADIUS:
                self._canvas.line([x, across], [y, down], "rule", 0.8, depth=1)
            muted = point.kind == "published"
            self._canvas.text(across, down, str(point.number), "muted" if muted else "ink", 11.0, "center", bold=True)

    def svg(self, alternative: str) -> Markup:
        return self._canvas.svg(alternative)


def _radius(point: Point) -> float:
    return 3.0 if point.number is None else _RADIUS


def _role(point: Point) -> str:
    return "refused" if point.kind in ("method", "baseline") else "before"


def _scatter(drawn: Sequence[Point], front: Sequence[Point], alternative: str) -> Markup:
    plane = _Plane(drawn)
    if front:
        plane.staircase(front)
    for point in drawn:
        plane.spans(point)
    for point in sorted(drawn, key=lambda point: point.number is not None):
        plane.dot(point)
    plane.numbers(drawn)
    return plane.svg(alternative)


def comparison(data: ReportData) -> Figure | None:
    """All methods by their means over the languages in scope."""
    scope = Scope.of(data)
    summaries = [summarise(data.rows, method, scope) for method in methods_of(data.rows)]
    lines = [_comparison_line(summary) for summary in summaries if summary.unsafe is not None]
    if not lines:
        return None
    over = f"{len(scope.languages)} {scope.kind} language{'s' * (len(scope.languages) != 1)}"
    listed = ", ".join(scope.languages)
    alternative = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=f"Methods: mean over {over}",
        caption=f"Mean unsafe rate over {listed} before (hollow) and after (filled); the intervals are means of the "
        "languages' intervals, which is never too narrow however the languages are correlated.",
        chart=dumbbell_chart(lines, f"Mean unsafe rate over {listed}. {alternative}.", pivot_rate(data)),
        table=comparison_table(summaries, scope),
    )


def _comparison_line(summary: MethodSummary) -> Dumbbell:
    unsafe = summary.unsafe
    assert unsafe is not None
    note = text.change(unsafe.before, unsafe.after)
    if summary.capability is not None:
        note += f", ability {points(summary.capability.difference)}"
    return Dumbbell(
        label=names.method_name(summary.method),
        note=note,
        before=unsafe.before,
        after=unsafe.after,
        before_interval=unsafe.before_interval,
        after_interval=unsafe.after_interval,
        muted=names.method_kind(summary.method) != "method",
    )
