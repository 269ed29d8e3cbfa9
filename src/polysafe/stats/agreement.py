"""How far people agree who labelled the same answers, beyond what they would by chance.

Cohen's κ of every two raters and Krippendorff's nominal α of all, both as nltk computes them; their intervals are
percentiles of a bootstrap over prompts, because all answers to one prompt go together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from polysafe.stats.intervals import Interval

if TYPE_CHECKING:
    from nltk.metrics.agreement import AnnotationTask

RESAMPLES = 1000

Labels = Mapping[str, Mapping[str, str]]
"""Rater -> item -> label."""
Triple = tuple[str, object, str]
Coefficient = Callable[["AnnotationTask"], float]


@dataclass(frozen=True)
class Agreement:
    """A coefficient of agreement in one language.

    Attributes:
        language: Language of the answers.
        of: What has to be alike: `label`, or `unsafe` for unsafe against everything else.
        raters: Whose labels: two names with κ; everybody's with α.
        coefficient: `kappa` or `alpha`, at most 1; 0 is what chance gives.
        value: It, None where everybody gave one and the same label: then nothing can be told from chance.
        low: Lower end of the 95 % interval, None where there is none.
        high: Upper end of it.
        n: Answers that two of these raters labelled.
        same: Of these, how many all of them gave one label.
    """

    language: str
    of: str
    raters: tuple[str, ...]
    coefficient: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    same: int


def agreements(
    language: str,
    of: str,
    labels: Labels,
    clusters: Mapping[str, str],
    *,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Agreement]:
    """κ of every two raters who labelled the same answers, and α of all.

    Args:
        language: Language of the answers.
        of: What the labels say.
        labels: Rater -> item -> label; what a rater gave no label is not there.
        clusters: Item -> the prompt that it answers.
        seed: Of the bootstrap.
        advance: Called after each coefficient.

    Raises:
        ImportError: nltk is not installed.
    """
    for one, other in combinations(sorted(labels), 2):
        pair = {rater: labels[rater] for rater in (one, other)}
        yield from _agreement(language, of, pair, clusters, "kappa", seed)
        advance()
    if len(labels) > 1:
        yield from _agreement(language, of, labels, clusters, "alpha", seed)
        advance()


def _agreement(
    language: str, of: str, labels: Labels, clusters: Mapping[str, str], coefficient: str, seed: int
) -> Iterator[Agreement]:
    given: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for rater, items in labels.items():
        for item, label in items.items():
            given[item][rater] = label
    shared = {item: each for item, each in given.items() if len(each) > 1}
    if not shared:
        return
    groups: defaultdict[str, list[Triple]] = defaultdict(list)
    for item, each in shared.items():
        groups[clusters[item]] += ((rater, item, label) for rater, label in each.items())
    same = sum(len(set(each.values())) == 1 for each in shared.values())
    value, span = _estimate(list(groups.values()), coefficient, seed)
    low, high = span or (None, None)
    yield Agreement(language, of, tuple(labels), coefficient, value, low, high, len(shared), same)


def _estimate(groups: Sequence[Sequence[Triple]], coefficient: str, seed: int) -> tuple[float | None, Interval | None]:
    """The coefficient, and its interval where there are two prompts to draw from."""
    from nltk.metrics.agreement import AnnotationTask
    from scipy.stats import bootstrap

    def drawn(chosen: np.ndarray) -> float:
        # an item that is drawn twice is two items
        triples = [
            (rater, (place, item), label)
            for place, group in enumerate(chosen)
            for rater, item, label in groups[int(group)]
        ]
        return float(getattr(AnnotationTask(data=triples), coefficient)())

    if len({label for group in groups for _, _, label in group}) == 1:
        return None, None
    everything = np.arange(len(groups))
    value = drawn(everything)
    if len(groups) == 1:
        return value, None
    # A draw in which everybody gives one label counts as agreement, 1, as nltk has it.
    found = bootstrap(
        (everything,),
        drawn,
        vectorized=False,
        method="percentile",
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return value, Interval(float(found.low), float(found.high))
