"""Methods that start from one model, held against each other and against their controls, prompt by prompt.

Only what all of them were asked is compared: the same prompts, languages and tasks. Edits of different models are never
in one contest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from polysafe.evaluate.unread import comparable
from polysafe.findings.names import CAPABILITY, WITHOUT, method_kind
from polysafe.methods.base import CONTROL
from polysafe.stats.compare import Outcomes
from polysafe.stats.rows import RateRow, Row
from polysafe.stats.versus import Versus, adjust_versus, mean_difference, mean_rate, versus_row

ABILITY = f"{CAPABILITY}all"
"""The mean of the ability tasks that all methods of a contest were asked."""

METRICS = ("unsafe", "over_refusal", ABILITY)
SHIPPABLE = ("method", "baseline", "published")
"""Kinds of methods that are held against each other; controls are held against their own method only."""


@dataclass(frozen=True)
class Edited:
    """What one method did, over all the models that it made.

    Attributes:
        start: Name of the model that it starts from; of all of them, where each language has its own.
        before: Outcomes of that model on the items of `after`.
        after: Outcomes of the edited model.
        clusters: Item -> its cluster, for items whose prompt has the same text as another's.
    """

    start: str
    before: Outcomes
    after: Outcomes
    clusters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contest:
    """Methods that start from the same model, on the prompts that all of them were asked.

    Attributes:
        start: Name of that model; empty where it is not known.
        languages: Languages that the rates are means over.
        tasks: Ability tasks that the mean ability is over.
        rates: Rates of the start, under the name of `start`, and of every method, under its own; one row per metric.
        pairs: Every two methods, and every method with its controls; empty where only rates are at hand.
    """

    start: str
    languages: tuple[str, ...]
    tasks: tuple[str, ...]
    rates: tuple[RateRow, ...]
    pairs: tuple[Versus, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The methods, in their order."""
        return [model for model in dict.fromkeys(row.model for row in self.rates) if model != self.start]

    def rate(self, model: str, metric: str) -> RateRow | None:
        """The rate of a method or of the start."""
        return next((row for row in self.rates if (row.model, row.metric) == (model, metric)), None)

    def between(self, method: str, other: str, metric: str) -> Versus | None:
        """A method against another, in whichever order they were compared."""
        for pair in self.pairs:
            if pair.metric == metric and {pair.method, pair.other} == {method, other}:
                return pair if pair.method == method else pair.turned
        return None


def contests(edited: Mapping[str, Edited], languages: Sequence[str]) -> tuple[Contest, ...]:
    """One contest for each start, over the languages in which any of its methods was asked for unsafe answers.

    Args:
        edited: Method -> what it did.
        languages: The languages in scope. A method that was not asked in all that others of its start were asked in
            is left out.
    """
    groups: defaultdict[str, dict[str, Edited]] = defaultdict(dict)
    for method, each in edited.items():
        groups[each.start][method] = each
    return tuple(contest for start, group in groups.items() if (contest := _whole(start, group, languages)) is not None)


def _whole(start: str, group: Mapping[str, Edited], languages: Sequence[str]) -> Contest | None:
    """The contest of those that were asked in every language; None where nobody was asked in any."""
    asked = {method: [code for code in languages if _tells(each, code)] for method, each in group.items()}
    over = [code for code in languages if any(code in codes for codes in asked.values())]
    complete = {method: each for method, each in group.items() if asked[method] == over}
    return _contest(start, complete, over) if over and complete else None


def _tells(each: Edited, language: str) -> bool:
    return (language, "unsafe") in comparable(each.after)


def contest_rows(compared: Iterable[Contest]) -> list[Row]:
    """The comparisons as rows of `results.json`."""
    rows = []
    for contest in compared:
        rates = {(row.model, row.metric): row for row in contest.rates}
        rows += [versus_row(p, rates[p.other, p.metric], rates[p.method, p.metric]) for p in contest.pairs]
    return rows


def families(methods: Sequence[str]) -> list[list[tuple[str, str]]]:
    """What is compared: every two methods are one family; each method with its controls is another.

    A control belongs to the methods whose name its own begins with; one that names no method here is everybody's.
    """
    able = [method for method in methods if method_kind(method) in SHIPPABLE]
    found = [list(combinations(able, 2))]
    for method in able:
        controls = [c for c in methods if method_kind(c) == "control" and method in _owners(c, able)]
        found.append([(method, control) for control in controls])
    return [family for family in found if family]


def _owners(control: str, methods: Sequence[str]) -> Sequence[str]:
    bare = control.removeprefix(CONTROL).partition(WITHOUT)[0]
    named = [method for method in methods if f"{bare}.".startswith(f"{method}.")]
    return named or [method for method in methods if method_kind(method) == "method"]


def _contest(start: str, group: Mapping[str, Edited], languages: Sequence[str]) -> Contest:
    cells = _common_cells([comparable(each.after) for each in group.values()], languages)
    items = {cell: set.intersection(*(set(each.after[cell]) for each in group.values())) for cell in cells}
    sides = {method: _restricted(each.after, items) for method, each in group.items()}
    first = next(iter(group.values()))
    clusters = {item: name for each in group.values() for item, name in each.clusters.items()}
    rates = list(_rates(start, _restricted(first.before, items), clusters))
    for method, side in sides.items():
        rates += _rates(method, side, clusters)
    pairs = []
    for family in families(list(group)):
        pairs += adjust_versus([p for one, other in family for p in _pairs(one, other, sides, clusters)])
    tasks = dict.fromkeys(metric.removeprefix(CAPABILITY) for _, metric in cells if metric.startswith(CAPABILITY))
    return Contest(start, tuple(languages), tuple(tasks), tuple(rates), tuple(pairs))


def _common_cells(sides: Sequence[Outcomes], languages: Sequence[str]) -> list[tuple[str, str]]:
    """What all were asked, metrics that some language lacks left out."""
    shared = [cell for cell in sides[0] if cell[0] in languages and all(cell in side for side in sides)]
    whole = {metric for _, metric in shared if all((language, metric) in shared for language in languages)}
    return [cell for cell in shared if cell[1] in whole and (cell[1] in METRICS or cell[1].startswith(CAPABILITY))]


def _restricted(side: Outcomes, items: Mapping[tuple[str, str], set[str]]) -> dict[str, Outcomes]:
    """Metric of the contest -> its outcomes."""
    kept_items: defaultdict[str, dict[tuple[str, str], Mapping[str, bool]]] = defaultdict(dict)
    for cell, kept in items.items():
        metric = ABILITY if cell[1].startswith(CAPABILITY) else cell[1]
        kept_items[metric][cell] = {item: holds for item, holds in side[cell].items() if item in kept}
    return {metric: kept_items[metric] for metric in METRICS if metric in kept_items}


def _rates(model: str, side: Mapping[str, Outcomes], clusters: Mapping[str, str]) -> Iterator[RateRow]:
    yield from (mean_rate(model, metric, outcomes, clusters) for metric, outcomes in side.items())


def _pairs(
    method: str, other: str, sides: Mapping[str, Mapping[str, Outcomes]], clusters: Mapping[str, str]
) -> Iterator[Versus]:
    for metric, after in sides[method].items():
        found = mean_difference(sides[other][metric], after, clusters)
        span = found.interval
        low, high = (None, None) if span is None else span
        yield Versus(
            method, other, metric, found.before, found.after, found.n, found.clusters, low, high, found.p_value
        )
