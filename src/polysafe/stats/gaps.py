"""The gap of a language: its rate minus that of a pivot language on the same prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from polysafe.errors import DataError
from polysafe.stats.compare import Outcomes
from polysafe.stats.differences import paired_difference
from polysafe.stats.intervals import Interval
from polysafe.stats.multiplicity import Adjustment, adjust_p
from polysafe.stats.tests import pivot_exact

POOLED = "all"
"""The language of a row over all languages together."""


@dataclass(frozen=True)
class Gap:
    """How one metric differs between a language and the pivot, for one model, on parallel prompts.

    Attributes:
        model: Name of the model.
        language: Language code, or `all` for the languages together.
        pivot: Language code of the pivot.
        metric: A metric of `Row`.
        rate: Share of the paired prompts on which the metric is true in the language; None where n = 0.
        pivot_rate: The same share in the pivot.
        n: Number of pairs.
        clusters: Number of clusters of prompts that the pairs come from.
        low: Lower end of the 95 % interval of `rate` minus `pivot_rate`.
        high: Upper end of it.
        p_value: Test of no gap: exact McNemar, by clusters where there are any; over several languages the larger of
            `mcnemar_clustered` and `pivot_exact`.
        p_adjusted: `p_value` adjusted over the languages of this model and metric; None for the pooled row.
        only_language: Prompts of the language that the pivot lacks; they are left out.
        only_pivot: Prompts of the pivot that the language lacks; they are left out.
    """

    model: str
    language: str
    pivot: str
    metric: str
    rate: float | None
    pivot_rate: float | None
    n: int
    clusters: int
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    only_language: int
    only_pivot: int

    @property
    def difference(self) -> float | None:
        """The gap: rate minus the pivot's."""
        return None if self.rate is None or self.pivot_rate is None else self.rate - self.pivot_rate

    @property
    def interval(self) -> Interval | None:
        """The interval of the gap."""
        return None if self.low is None or self.high is None else Interval(self.low, self.high)


def gap_rows(
    model: str,
    outcomes: Outcomes,
    pivot: str,
    *,
    parallel: Mapping[str, str] | None = None,
    clusters: Mapping[str, str] | None = None,
    adjustment: Adjustment = "holm",
    level: float = 0.95,
) -> list[Gap]:
    """Compares every language with the pivot, prompt by prompt.

    Rows come in the order of `outcomes`; after those of a metric with several languages comes one over all of them
    together, in which every language weighs by its pairs and all pairs of one prompt are one cluster.

    Args:
        model: The name that the rows carry.
        outcomes: Outcomes of the model in the pivot and in the languages.
        pivot: Language code of the pivot.
        parallel: Item id -> name of the prompt that is the same in every language (`Prompt.parallel`). Where None,
            items have the same id in every language.
        clusters: Name of a prompt -> its cluster, for prompts that occur twice. Those not named are on their own.
        adjustment: Correction of the p-values over the languages of each metric.
        level: Confidence level of the intervals.

    Raises:
        DataError: A metric lacks the pivot, an item lacks its parallel name, or two items of a language have the same.
    """
    by_metric: dict[str, dict[str, dict[str, bool]]] = defaultdict(dict)
    for (language, metric), items in outcomes.items():
        by_metric[metric][language] = _by_prompt(items, parallel, f"{model}, {language}, {metric}")
    gaps = []
    for metric, languages in by_metric.items():
        if pivot not in languages:
            raise DataError(
                f"has no outcomes in the pivot {pivot!r}",
                where=f"{model}, {metric}",
                remedy=f"languages: {', '.join(languages)}",
            )
        blank = _blank(model, pivot, metric)
        gaps += _metric_rows(blank, languages, clusters or {}, adjustment, level)
    return gaps


def adjust_gaps(gaps: Sequence[Gap], adjustment: Adjustment = "holm") -> list[Gap]:
    """Fills in `p_adjusted` over the languages of each metric.

    For gaps that belong to one claim although they were computed one by one, as where a method makes a model of its own
    for every language. Gaps over all languages, and gaps without a p-value, belong to no family.
    """
    families: dict[str, list[int]] = defaultdict(list)
    for index, gap in enumerate(gaps):
        if gap.language != POOLED and gap.p_value is not None:
            families[gap.metric].append(index)
    adjusted = list(gaps)
    for members in families.values():
        tested = [p for i in members if (p := gaps[i].p_value) is not None]
        for i, p in zip(members, adjust_p(tested, adjustment), strict=True):
            adjusted[i] = replace(gaps[i], p_adjusted=p)
    return adjusted


def _metric_rows(
    blank: Gap,
    languages: Mapping[str, Mapping[str, bool]],
    clusters: Mapping[str, str],
    adjustment: Adjustment,
    level: float,
) -> list[Gap]:
    base = languages[blank.pivot]
    others = {language: items for language, items in languages.items() if language != blank.pivot}
    rows = [_compare(replace(blank, language=name), base, [items], clusters, level) for name, items in others.items()]
    rows = adjust_gaps(rows, adjustment)
    if len(others) > 1:
        pooled = _compare(blank, base, list(others.values()), clusters, level)
        rows.append(replace(pooled, p_value=_pooled_p(pooled, base, list(others.values()))))
    return rows


def _pooled_p(pooled: Gap, base: Mapping[str, bool], languages: Sequence[Mapping[str, bool]]) -> float | None:
    """The larger of two p-values, which is valid if either is (see `pivot_exact`)."""
    if pooled.p_value is None:
        return None
    prompts = []
    for prompt, pivot in base.items():
        outcomes = [items[prompt] for items in languages if prompt in items]
        prompts.append((pivot, sum(outcomes), len(outcomes)))
    return max(pooled.p_value, pivot_exact(prompts))


def _compare(
    blank: Gap,
    base: Mapping[str, bool],
    languages: Sequence[Mapping[str, bool]],
    clusters: Mapping[str, str],
    level: float,
) -> Gap:
    pairs = list(_pairs(base, languages))
    paired = paired_difference(
        [base[prompt] for prompt, _ in pairs],
        [outcome for _, outcome in pairs],
        [clusters.get(prompt, prompt) for prompt, _ in pairs],
        level,
    )
    return replace(
        blank,
        rate=paired.after,
        pivot_rate=paired.before,
        n=paired.n,
        clusters=paired.clusters,
        low=paired.low,
        high=paired.high,
        p_value=paired.p_value,
        only_language=sum(len(items.keys() - base.keys()) for items in languages),
        only_pivot=sum(len(base.keys() - items.keys()) for items in languages),
    )


def _pairs(base: Mapping[str, bool], languages: Sequence[Mapping[str, bool]]) -> Iterator[tuple[str, bool]]:
    """Prompts that the pivot has too, with their outcomes, language after language."""
    for items in languages:
        yield from ((prompt, outcome) for prompt, outcome in items.items() if prompt in base)


def _by_prompt(items: Mapping[str, bool], parallel: Mapping[str, str] | None, where: str) -> dict[str, bool]:
    if parallel is None:
        return dict(items)
    by_prompt: dict[str, bool] = {}
    for item, outcome in items.items():
        if item not in parallel:
            raise DataError(f"item {item!r} has no parallel name", where=where)
        prompt = parallel[item]
        if prompt in by_prompt:
            raise DataError(
                f"two items are the prompt {prompt!r}",
                where=where,
                remedy="Keep one, or give both a name of their own and one cluster.",
            )
        by_prompt[prompt] = outcome
    return by_prompt


def _blank(model: str, pivot: str, metric: str) -> Gap:
    return Gap(model, POOLED, pivot, metric, None, None, 0, 0, None, None, None, None, 0, 0)
