"""Method against method and against its controls: what paired differences tell, in words and as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from polysafe.findings import names
from polysafe.findings.contests import ABILITY, Contest
from polysafe.findings.data import ReportData
from polysafe.findings.summary import SIGNIFICANT, Scope, methods_of
from polysafe.report.tables import Cell, Group, Table
from polysafe.stats.intervals import mean_interval
from polysafe.stats.rows import RateRow, Row
from polysafe.stats.versus import Versus
from polysafe.text.readable import LEVEL, NOTHING, gap_interval, p_value, points, sized

_NAMES = {"unsafe": "Unsafe", "over_refusal": "Over-refusal", ABILITY: "Ability"}


def told_apart(pair: Versus) -> int:
    """−1 or 1 where the rate of the first method is lower or higher by the adjusted test, else 0."""
    if pair.p_adjusted is None or pair.p_adjusted >= SIGNIFICANT or not pair.difference:
        return 0
    return 1 if pair.difference > 0 else -1


def contests_of(data: ReportData) -> tuple[Contest, ...]:
    """The contests of a report; where only rates are at hand, those of methods whose rates before are the same."""
    return data.contests or tuple(_of_rates(data))


def versus_sentences(data: ReportData) -> list[str]:
    """How many pairs the paired differences tell apart, family by family."""
    return [_sentence(heading, pairs) for heading, pairs in _families(data) if pairs]


def versus_table(data: ReportData) -> Table | None:
    """All pairs, one group per family; None where there are none."""
    groups = []
    for heading, pairs in _families(data):
        found = {(pair.method, pair.other, pair.metric): pair for pair in pairs}
        contestants = dict.fromkeys((pair.method, pair.other) for pair in pairs)
        rows = tuple(
            (
                Cell(names.method_name(method), ("against", names.method_name(other))),
                *(_cell(found.get((method, other, metric))) for metric in _NAMES),
            )
            for method, other in contestants
        )
        groups.append(Group(heading, "", rows))
    columns = ("Methods", *(f"{name}, points" for name in _NAMES.values()))
    caption = f"Differences on the same prompts, {LEVEL} intervals, p adjusted by Holm within each group and column"
    return Table(caption, columns, tuple(groups)) if groups else None


def _families(data: ReportData) -> Iterator[tuple[str, list[Versus]]]:
    """Heading and pairs of each family that was adjusted together."""
    for contest in data.contests:
        families: defaultdict[str, list[Versus]] = defaultdict(list)
        for pair in contest.pairs:
            own = names.method_kind(pair.other) == "control"
            families[names.method_name(pair.method) if own else ""].append(pair)
        for owner, pairs in families.items():
            yield f"{owner} against its controls" if owner else f"Edits of {contest.start}, each against each", pairs


def _sentence(heading: str, pairs: Sequence[Versus]) -> str:
    told = []
    for metric, name in _NAMES.items():
        mine = [pair for pair in pairs if pair.metric == metric]
        if mine:
            told.append(f"{name.lower()} {sum(told_apart(pair) != 0 for pair in mine)} of {len(mine)}")
    return f"{heading}: told apart in {', '.join(told)} pairs."


def _cell(pair: Versus | None) -> Cell:
    if pair is None or pair.difference is None:
        return Cell(NOTHING)
    better = told_apart(pair) * (1 if pair.metric == ABILITY else -1)
    shown = NOTHING if pair.p_adjusted is None else p_value(pair.p_adjusted)
    p = f"p {shown}" if shown.startswith("<") else f"p = {shown}"
    notes = tuple(filter(None, (gap_interval(pair.interval), f"{sized(pair.n, pair.clusters)}, {p}")))
    return Cell(points(pair.difference), notes, {1: "better", -1: "worse", 0: ""}[better])


def _of_rates(data: ReportData) -> Iterator[Contest]:
    """Contests without pairs: of methods with the same unsafe rates before, on cells of the same size."""
    scope = Scope.of(data).languages
    groups: defaultdict[object, dict[str, dict[tuple[str, str, int], Row]]] = defaultdict(dict)
    for method in methods_of(data.rows):
        rows = [row for row in data.of_method(method) if row.language in scope]
        start = {row.language: (row.before, row.n) for row in rows if row.metric == "unsafe" and row.before is not None}
        if set(start) == set(scope):
            groups[tuple(start[language] for language in scope)][method] = {
                (row.language, row.metric, row.n): row for row in rows if row.after is not None
            }
    for group in groups.values():
        yield _of_group(group, scope)


def _of_group(group: dict[str, dict[tuple[str, str, int], Row]], scope: Sequence[str]) -> Contest:
    first = next(iter(group.values()))
    shared = [key for key in first if all(key in cells for cells in group.values())]
    tasks = dict.fromkeys(
        metric for _, metric, _ in shared
        if metric.startswith(names.CAPABILITY) and {key[0] for key in shared if key[1] == metric} == set(scope)
    )  # fmt: skip
    rates: list[RateRow] = []
    for metric in _NAMES:
        keys = [key for key in shared if key[1] == metric or (metric == ABILITY and key[1] in tasks)]
        if not keys:
            continue
        rates.append(_mean("", metric, [(r.before, r.before_interval, r.n) for r in map(first.__getitem__, keys)]))
        for method, cells in group.items():
            found = [(r.after, r.after_interval, r.n) for r in map(cells.__getitem__, keys)]
            rates.append(_mean(method, metric, found))
    bare = tuple(task.removeprefix(names.CAPABILITY) for task in tasks)
    return Contest("", tuple(scope), bare, tuple(rates))


def _mean(model: str, metric: str, found: Sequence[tuple[float | None, object, int]]) -> RateRow:
    rates = [rate for rate, _, _ in found if rate is not None]
    spans = [span for _, span, _ in found if span is not None]
    span = mean_interval(spans) if len(spans) == len(found) else None  # type: ignore[arg-type]
    low, high = (None, None) if span is None else span
    return RateRow(model, "all", metric, sum(rates) / len(rates), sum(n for _, _, n in found), low, high)
