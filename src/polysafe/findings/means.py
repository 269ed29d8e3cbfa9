"""Means over languages, computed where single answers are still known; rows alone do not tell how languages agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from polysafe.evaluate.unread import comparable, possible
from polysafe.findings.contests import ABILITY, Edited
from polysafe.findings.names import CAPABILITY, SAFETY_METRICS
from polysafe.stats.compare import Outcomes
from polysafe.stats.language_means import MeanRate, MeanShift, mean_rate, mean_shift

BEFORE_GAP, AFTER_GAP = "gap.before.", "gap.after."
"""Begin the metric of a mean gap to the pivot: of the model that the edit starts from, and of the edited one."""


@dataclass(frozen=True)
class Pivots:
    """Outcomes in the pivot that languages are held against, item by item.

    Attributes:
        before: (language, metric) -> item -> its outcome in the pivot, of the model that the edit starts from.
        after: The same of the edited model.
    """

    before: Outcomes
    after: Outcomes


def rates_over(
    model: str, outcomes: Outcomes, languages: Collection[str], clusters: Mapping[str, str]
) -> Iterator[MeanRate]:
    """The mean of every metric of one model over several languages."""
    for metric, cells in _by_metric(_measured(comparable(outcomes), languages)).items():
        yield mean_rate(model, metric, cells, clusters, possible(outcomes, cells))


def shifts_over(method: str, edited: Edited, pivots: Pivots, languages: Collection[str]) -> Iterator[MeanShift]:
    """What a method changed in the mean: every metric, ability, and the gaps to the pivot.

    Args:
        method: Its name.
        edited: What it changed, answer by answer.
        pivots: What its languages are held against.
        languages: The languages in the mean. Ability is also a mean over the tasks of each single language.
    """
    for metric, cells in _by_metric(_known(edited, languages)).items():
        yield _shift(method, metric, cells, edited)
    for code in dict.fromkeys(language for language, _ in edited.after):
        tasks = _by_metric(_known(edited, [code])).get(ABILITY, {})
        if len(tasks) > 1 and {code} != set(languages):
            yield _shift(method, ABILITY, tasks, edited)
    for name, side, pivot in (
        (BEFORE_GAP, edited.before, pivots.before),
        (AFTER_GAP, edited.after, pivots.after),
    ):
        known = comparable(side)
        cells = {cell: items for cell, items in _measured(pivot, languages).items() if cell in known}
        for metric, base in _by_metric(cells).items():
            paired = {cell: {item: side[cell][item] for item in items} for cell, items in base.items()}
            yield mean_shift(method, name + metric, base, paired, edited.clusters)


def _shift(method: str, metric: str, cells: Iterable[tuple[str, str]], edited: Edited) -> MeanShift:
    cells = list(cells)
    before, after = ({cell: side[cell] for cell in cells} for side in (edited.before, edited.after))
    most = possible(edited.before, cells), possible(edited.after, cells)
    return mean_shift(method, metric, before, after, edited.clusters, possible=most)


def _known(edited: Edited, languages: Collection[str]) -> Outcomes:
    """The cells that are measured on both sides."""
    after = comparable(edited.after)
    return _measured({cell: items for cell, items in comparable(edited.before).items() if cell in after}, languages)


def _measured(outcomes: Outcomes, languages: Collection[str]) -> Outcomes:
    return {cell: items for cell, items in outcomes.items() if cell[0] in languages and items}


def _by_metric(outcomes: Outcomes) -> dict[str, Outcomes]:
    """Cells by their metric, all ability tasks together."""
    found: defaultdict[str, dict[tuple[str, str], Mapping[str, bool]]] = defaultdict(dict)
    for cell, items in outcomes.items():
        if cell[1].startswith(CAPABILITY):
            found[ABILITY][cell] = items
        elif cell[1] in SAFETY_METRICS:
            found[cell[1]][cell] = items
    return dict(found)
