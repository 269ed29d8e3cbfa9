"""Methods beside each other: safety against ability, and the means over the languages in scope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup

from polysafe.findings import names
from polysafe.findings.contests import ABILITY, SHIPPABLE, Contest
from polysafe.findings.data import ReportData
from polysafe.findings.outcome import Kind
from polysafe.findings.summary import MethodSummary, Scope, methods_of, summarise
from polysafe.findings.verdict import ABILITY_LOSS, OVER_REFUSAL_RISE, classify
from polysafe.report.charts.axis import Axis, axis_of
from polysafe.report.charts.canvas import WIDTH, Canvas
from polysafe.report.charts.figure import Figure
from polysafe.report.charts.figures import Dumbbell, dumbbell_chart
from polysafe.report.charts.placement import Box, place_labels
from polysafe.report.sections.unsafe import pivot_rate
from polysafe.report.sections.versus import contests_of, told_apart
from polysafe.report.tables import Cell, Group, Table, comparison_table
from polysafe.stats.rows import RateRow
from polysafe.text import readable as text
from polysafe.text.readable import LEVEL, NOTHING, interval, percent, points


@dataclass(frozen=True)
class Point:
    """A method on the plane of safety and ability, on the prompts that all methods from its start were asked.

    Attributes:
        number: Its number in the chart, from 1; None for what stands beside for comparison alone.
        method: Its name in the rows.
        unsafe: Mean unsafe rate after the edit.
        ability: Mean ability after the edit.
        over_refusal: Mean over-refusal after the edit; None where it was not measured.
        costly: Whether over-refusal rose by more than is tolerated.
        broken: Whether broken answers took the place of the unsafe ones.
    """

    number: int | None
    method: str
    unsafe: RateRow
    ability: RateRow
    over_refusal: RateRow | None = None
    costly: bool = False
    broken: bool = False

    @property
    def name(self) -> str:
        """Its name in words."""
        return names.method_name(self.method)

    @property
    def kind(self) -> str:
        """What `names.method_kind` says."""
        return names.method_kind(self.method)

    @property
    def label(self) -> str:
        """Its number, where it has one, and its name."""
        return self.name if self.number is None else f"{self.number} {self.name}"

    @property
    def at(self) -> tuple[float, float]:
        """Unsafe rate and ability."""
        return self.unsafe.rate or 0.0, self.ability.rate or 0.0

    @property
    def eligible(self) -> bool:
        """Whether it can beat others: a control is nothing to ship, and a broken model is not a safe one."""
        return self.kind in SHIPPABLE and not self.broken


def beats(contest: Contest, one: Point, other: Point) -> bool:
    """Whether paired differences show that a method is better than another.

    It is better in safety or in ability by the adjusted test, and in the other of the two it is better as well, or the
    interval of the difference ends before a loss that counts (`ABILITY_LOSS`). Smaller differences tell nothing.
    """
    unsafe, ability = (contest.between(one.method, other.method, metric) for metric in ("unsafe", ABILITY))
    if not one.eligible or unsafe is None or ability is None or unsafe.high is None or ability.low is None:
        return False
    safer, abler = told_apart(unsafe) < 0, told_apart(ability) > 0
    as_safe, as_able = safer or unsafe.high <= ABILITY_LOSS, abler or ability.low >= -ABILITY_LOSS
    return (safer or abler) and as_safe and as_able


def beaten(contest: Contest, drawn: Sequence[Point]) -> dict[str, list[Point]]:
    """Method -> the points that beat it; methods that none beats are left out."""
    found = {point.method: [other for other in drawn if beats(contest, other, point)] for point in drawn}
    return {method: others for method, others in found.items() if others}


def tradeoff_points(data: ReportData, contest: Contest) -> list[Point]:
    """The methods of a contest whose safety and ability were measured."""
    numbers, scope, found = count(1), Scope.of(data), []
    for method in (name for name in methods_of(data.rows) if name in contest.methods):
        unsafe, ability = contest.rate(method, "unsafe"), contest.rate(method, ABILITY)
        if unsafe is None or ability is None or unsafe.rate is None or ability.rate is None:
            continue
        refusal, before = (contest.rate(model, "over_refusal") for model in (method, contest.start))
        rise = 0.0 if refusal is None or before is None else (refusal.rate or 0.0) - (before.rate or 0.0)
        number = next(numbers) if names.method_kind(method) in SHIPPABLE else None
        broken = classify(summarise(data, method, scope)) is Kind.BROKEN
        found.append(Point(number, method, unsafe, ability, refusal, rise > OVER_REFUSAL_RISE, broken))
    return found


def tradeoffs(data: ReportData) -> list[Figure]:
    """Safety against ability, one figure for each start that at least two methods are edits of."""
    contests = [(contest, tradeoff_points(data, contest)) for contest in contests_of(data)]
    drawn = [(c, found) for c, found in contests if len(found) > 1 and any(point.number for point in found)]
    there = {point.method for _, found in drawn for point in found}
    missing = [method for method in methods_of(data.rows) if method not in there]
    figures = [_figure(data, contest, found, several=len(drawn) > 1) for contest, found in drawn]
    if figures and missing:
        listed = ", ".join(map(names.method_name, missing))
        note = f"Not drawn, because not all was measured or nothing else starts from the same model: {listed}."
        figures[-1] = Figure(**{**vars(figures[-1]), "caption": f"{figures[-1].caption} {note}"})
    return figures


def _figure(data: ReportData, contest: Contest, drawn: Sequence[Point], *, several: bool) -> Figure:
    lost = beaten(contest, drawn)
    told = "; ".join(_told(point, lost) for point in drawn)
    over = ", ".join(contest.languages)
    return Figure(
        heading="Safety against ability" + (f": edits of {contest.start or 'another model'}" if several else ""),
        caption=_caption(data, contest, drawn, lost),
        chart=_scatter(contest, drawn, lost, f"Mean unsafe rate and ability after the edit over {over}. {told}."),
        table=_table(contest, drawn, lost),
        key=tuple(point.name for point in drawn if point.number is not None),
    )


def _told(point: Point, lost: dict[str, list[Point]]) -> str:
    unsafe, ability = point.at
    words = [f"{point.label}: unsafe {percent(unsafe)}, ability {percent(ability)}"]
    if point.method in lost:
        words.append(f"beaten by {_numbers(lost[point.method])}")
    if point.broken:
        words.append("answers broke")
    if point.costly and point.over_refusal is not None:
        words.append(f"over-refusal {percent(point.over_refusal.rate)}")
    return ", ".join(words)


def _numbers(found: Sequence[Point]) -> str:
    return ", ".join(str(point.number) for point in found)


def _caption(data: ReportData, contest: Contest, drawn: Sequence[Point], lost: dict[str, list[Point]]) -> str:
    tasks = ", ".join(names.metric_name(f"{names.CAPABILITY}{task}") for task in contest.tasks)
    sentences = [f"After the edit, over {', '.join(contest.languages)} and the tasks that all were asked ({tasks})."]
    asked = {row.metric.removeprefix(names.CAPABILITY) for row in data.rows
             if row.method in contest.methods and row.metric.startswith(names.CAPABILITY)}  # fmt: skip
    if left := [task for task in sorted(asked) if task not in contest.tasks]:
        sentences.append(f"Left out, because not all were asked: {', '.join(left)}.")
    unsafe, ability = (contest.rate(contest.start, metric) for metric in ("unsafe", ABILITY))
    if unsafe is not None and ability is not None:
        sentences.append(f"Before: unsafe {percent(unsafe.rate)}, ability {percent(ability.rate)}.")
    sentences.append(_standing(contest, drawn, lost))
    if broken := [point.label for point in drawn if point.broken]:
        sentences.append(f"It beats nothing whatever its place, because answers broke: {', '.join(broken)}.")
    if beyond := [point for point in drawn if point.at[0] > _across(drawn).high]:
        listed = ", ".join(f"{point.label} ({percent(point.at[0])})" for point in beyond)
        sentences.append(f"Beyond the right end: {listed}.")
    by = ", which count each prompt once" if contest.pairs else ", means of those of the languages and tasks"
    return " ".join([*sentences, f"Bars are {LEVEL} intervals{by}."])


def _standing(contest: Contest, drawn: Sequence[Point], lost: dict[str, list[Point]]) -> str:
    if not contest.pairs:
        return (
            "Only rates are at hand, no outcomes of single prompts: no method is said to beat another, and that all "
            "start from one model is taken from equal rates before."
        )
    listed = ", ".join(f"{p.label} (by {_numbers(lost[p.method])})" for p in drawn if p.method in lost and p.number)
    if not listed:
        return "No method is shown to beat another: paired differences do not tell them apart in both."
    return f"Beaten, as paired differences show: {listed}. None is shown to beat those with bold numbers."


def _table(contest: Contest, drawn: Sequence[Point], lost: dict[str, list[Point]]) -> Table:
    start = [contest.rate(contest.start, metric) for metric in ("unsafe", ABILITY, "over_refusal")]
    rows = [(Cell("Before the edit", (contest.start,) if contest.start else ()), *map(_rate, start), Cell(NOTHING))]
    for point in drawn:
        by = lost.get(point.method, [])
        standing = _numbers(by) if by else "none" if contest.pairs else NOTHING
        label = Cell(point.label, () if point.kind == "method" else (point.kind,))
        rates = (point.unsafe, point.ability, point.over_refusal)
        rows.append((label, *map(_rate, rates), Cell(standing, ("broken",) if point.broken else ())))
    columns = ("Method", "Unsafe", "Ability", "Over-refusal", "Shown to be beaten by")
    return Table("Safety against ability", columns, (Group("", "", tuple(rows)),))


def _rate(row: RateRow | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    return Cell(percent(row.rate), tuple(filter(None, (interval(row.interval), f"n {row.n}"))))


_ROOM = Box(44.0, 24.0, WIDTH - 44.0 - 16.0, 232.0)
_RADIUS, _FRAME = 4.5, 7.5
_DIGIT, _LABEL_HEIGHT = 6.6, 11.0
_LEAST = 0.05


def _across(drawn: Sequence[Point]) -> Axis:
    """The axis of unsafe rates: as long as what could be shipped needs it, so that good methods stand apart."""
    shippable = [point.unsafe for point in drawn if point.number is not None]
    return axis_of([*(end for row in shippable for end in row.interval or ()), *(row.rate or 0.0 for row in shippable)])


def _upwards(contest: Contest, drawn: Sequence[Point]) -> Axis:
    """The axis of ability, which need not begin at 0."""
    rows = [point.ability for point in drawn] + [row for row in [contest.rate(contest.start, ABILITY)] if row]
    ends = [end for point in drawn if point.number for end in point.ability.interval or ()]
    known = [*ends, *(row.rate or 0.0 for row in rows)]
    return axis_of([min([*known, max(0.0, max(known) - _LEAST)]), max(known)], zero=False)


class _Plane:
    """A canvas with unsafe rates from left to right and ability upwards."""

    def __init__(self, contest: Contest, drawn: Sequence[Point]) -> None:
        self._across, self._up = _across(drawn), _upwards(contest, drawn)
        self._canvas = Canvas(_ROOM.top + _ROOM.height + 40.0)
        self._grid()
        before = contest.rate(contest.start, ABILITY)
        if before is not None and before.rate is not None:
            _, y = self.at(0.0, before.rate)
            self._canvas.line([_ROOM.left, _ROOM.left + _ROOM.width], [y, y], "ink", 1.3, dashes=(0, (4, 2.5)), depth=1)

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
            self._canvas.line([_ROOM.left, _ROOM.left + _ROOM.width], [y, y], "rule", 0.8, depth=0)
            self._canvas.text(_ROOM.left - 6.0, y, self._up.label(tick), "muted", 10.5, "right")
        self._canvas.text(_ROOM.left + _ROOM.width, foot + 29.0, "mean unsafe rate after", "muted", 11.5, "right")
        self._canvas.text(8.0, 5.0, "mean ability after", "muted", 11.5)
        self._canvas.text(_ROOM.left, foot + 29.0, "\N{LEFTWARDS ARROW} safer", "muted", 11.5)
        self._canvas.text(_ROOM.left + _ROOM.width, 5.0, "\N{UPWARDS ARROW} abler", "muted", 11.5, "right")

    def spans(self, point: Point) -> None:
        if point.number is None:
            return
        x, y = self.at(*point.at)
        role, (unsafe, ability) = _role(point), point.at
        if point.unsafe.interval is not None:
            ends = [self.at(end, ability)[0] for end in point.unsafe.interval]
            self._canvas.line(ends, [y, y], role, 1.2, opacity=0.3)
        if point.ability.interval is not None:
            ends = [self.at(unsafe, end)[1] for end in point.ability.interval]
            self._canvas.line([x, x], ends, role, 1.2, opacity=0.3)

    def dot(self, point: Point) -> None:
        if point.at[0] > self._across.high:
            return
        x, y = self.at(*point.at)
        if point.broken:
            for rise in (-_RADIUS, _RADIUS):
                self._canvas.line([x - _RADIUS, x + _RADIUS], [y - rise, y + rise], "unsafe", 2.2, depth=3)
        else:
            self._canvas.circle(x, y, _role(point), hollow=point.kind != "method", radius=_radius(point))
        if point.costly:
            self._canvas.frame(x - _FRAME, y - _FRAME, 2 * _FRAME, 2 * _FRAME, "unsafe", 1.4)

    def numbers(self, drawn: Sequence[Point], lost: dict[str, list[Point]]) -> None:
        numbered = [point for point in drawn if point.number is not None]
        at = [self.at(*point.at) for point in numbered]
        sizes = [(_DIGIT * len(str(point.number)) + 2.0, _LABEL_HEIGHT) for point in numbered]
        room = Box(_ROOM.left, _ROOM.top - 6.0, _ROOM.width + 8.0, _ROOM.height + 10.0)
        radii = [(_FRAME if point.costly else _RADIUS) + 1.5 for point in numbered]
        for point, (x, y), box in zip(numbered, at, place_labels(at, sizes, radii, room), strict=True):
            across, down = box.centre
            if math.hypot(across - x, down - y) > 4.0 * _RADIUS:
                self._canvas.line([x, across], [y, down], "rule", 0.8, depth=1)
            weak = point.method in lost or point.broken
            self._canvas.text(
                across, down, str(point.number), "muted" if weak else "ink", 11.0, "center", bold=not weak
            )

    def svg(self, alternative: str) -> Markup:
        return self._canvas.svg(alternative)


def _radius(point: Point) -> float:
    return 3.0 if point.number is None else _RADIUS


def _role(point: Point) -> str:
    return "refused" if point.kind in ("method", "baseline") else "before"


def _scatter(contest: Contest, drawn: Sequence[Point], lost: dict[str, list[Point]], alternative: str) -> Markup:
    plane = _Plane(contest, drawn)
    for point in drawn:
        plane.spans(point)
    for point in sorted(drawn, key=lambda point: point.number is not None):
        plane.dot(point)
    plane.numbers(drawn, lost)
    return plane.svg(alternative)


def comparison(data: ReportData) -> Figure | None:
    """All methods by their means over the languages in scope."""
    scope = Scope.of(data)
    summaries = [summarise(data, method, scope) for method in methods_of(data.rows)]
    lines = [_comparison_line(summary) for summary in summaries if summary.unsafe is not None]
    if not lines:
        return None
    over = f"{len(scope.languages)} {scope.kind} language{'s' * (len(scope.languages) != 1)}"
    listed = ", ".join(scope.languages)
    alternative = "; ".join(f"{line.label}: {line.note}" for line in lines)
    return Figure(
        heading=f"Methods: mean over {over}",
        caption=f"Mean unsafe rate over {listed} before (hollow) and after (filled); intervals count each prompt "
        "once; where only rates are at hand they are means of the languages' intervals, which is never too narrow.",
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
