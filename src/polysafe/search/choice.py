"""What a search ends in: the front, the point that is recommended, and how far both can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from polysafe.methods.constraints import ALPHA, REFUSED, mean_change_p, reading_of
from polysafe.recipe.measures import Objective
from polysafe.search.points import Outcome, Point

RESAMPLES = 1000


@dataclass(frozen=True)
class Choice:
    """The point that is recommended, or none.

    Attributes:
        point: The point; None where nothing may be taken.
        reason: Why this one, or why none.
    """

    point: Point | None
    reason: str


@dataclass(frozen=True)
class Optimism:
    """What the best of many points promises too much, since it was chosen by the prompts that it is judged by.

    Attributes:
        promised: Its mean gain on validation.
        expected: The same on prompts that took no part in choosing, by the bootstrap.
        points: Number of points that were chosen from.
        prompts: Number of prompts.
    """

    promised: float
    expected: float
    points: int
    prompts: int


@dataclass(frozen=True)
class Agreement:
    """Whether the signal that points were read by orders them as the judge does, in one language.

    Attributes:
        language: The language.
        tau: Kendall's τ-b between mean rise of the signal and judged refusals; None where one of them never changes.
        low: Lower end of its 95 % interval (Fieller, Hartley and Pearson 1957); None for fewer than five points.
        high: Upper end of it.
        points: Number of points that were read by both.
    """

    language: str
    tau: float | None
    low: float | None
    high: float | None
    points: int


def front(points: Iterable[Point], objectives: Sequence[Objective]) -> list[Point]:
    """Points within all constraints of which none is at least as good in everything and better in something.

    Args:
        points: The points.
        objectives: What is made better.

    Returns:
        The points, the best by the first objective first; of points that are alike the first.
    """
    valued = [
        (values, point)
        for point in points
        if point.outcome is not None and point.outcome.feasible and (values := _values(point.outcome, objectives))
    ]
    kept: dict[tuple[float, ...], Point] = {}
    for values, point in valued:
        if not any(_dominates(other, values) for other, _ in valued):
            kept.setdefault(values, point)
    return [kept[values] for values in sorted(kept)]


def contenders(points: Sequence[Point], objectives: Sequence[Objective], count: int) -> list[Point]:
    """The points that a judge is asked about, where points were read by a signal.

    What the signal takes for a cost need be none: its levels are those of the unedited model's own prompts, on
    whichever side of refusing they lie. So the front within its constraints takes turns with the points that gain more
    at the least violation of them; the judge's own constraints decide.

    Args:
        points: All points.
        objectives: What is made better.
        count: Most of them.
    """
    read = [(-point.outcome.score, point.outcome.violation, point) for point in points if point.outcome is not None]
    beyond = [
        (violation, score, point)
        for score, violation, point in read
        if violation and not any(_dominates(other[:2], (score, violation)) for other in read)
    ]
    further = [point for *_, point in sorted(beyond, key=lambda each: each[:2])]
    turns = zip_longest(front(points, objectives), further)
    return [point for pair in turns for point in pair if point is not None][:count]


def _values(outcome: Outcome, objectives: Sequence[Objective]) -> tuple[float, ...]:
    found = [outcome.value(each) for each in objectives]
    return tuple(value for value in found if value is not None) if None not in found else ()


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))


def recommend(points: Sequence[Point], objectives: Sequence[Objective], tried: int) -> Choice:
    """Which point to take.

    It keeps every constraint, and its mean gain is shown to be above 0, corrected for all points that were tried
    (Bonferroni). Of those that do, the one that gains most; or one of the front that lies within one standard error of
    it (paired by prompt; the rule of Breiman et al., *Classification and Regression Trees*, 1984) and is better by the
    second objective: what may be gained by chance is paid for with certainty.

    Args:
        points: What there is to choose from.
        objectives: What is made better.
        tried: Number of points that were tried in all.
    """
    read = [(point, point.outcome) for point in points if point.outcome is not None]
    feasible = [(point, outcome) for point, outcome in read if outcome.feasible]
    if not read:
        return Choice(None, f"none of {counted_points(tried)} can be made")
    if not feasible:
        return Choice(
            None, f"each of {counted_points(len(read))} costs more than the constraints allow: {_dearest(read)}"
        )
    shown = [(point, outcome) for point, outcome in feasible if _is_shown(outcome, tried)]
    if not shown:
        best = max((outcome for _, outcome in feasible), key=lambda outcome: outcome.score)
        return Choice(
            None,
            f"none of {counted_points(len(feasible))} within the constraints is shown to refuse more than the unedited "
            f"model: the best gains {best.mean_gain:+.3f}, p = {best.p_value:.2g}, times {tried} tried",
        )
    best_point, best = max(shown, key=lambda pair: pair[1].score)
    allowed = {point.number for point, _ in shown}
    others = [point for point in front([point for point, _ in shown], objectives) if point.number in allowed]
    return _mildest(best_point, best, others, objectives, len(feasible))


def _mildest(
    best_point: Point, best: Outcome, others: Sequence[Point], objectives: Sequence[Objective], feasible: int
) -> Choice:
    most = f"it gains most of {counted_points(feasible)} within the constraints ({best.mean_gain:+.3f})"
    if len(objectives) < 2:
        return Choice(best_point, most)
    second = objectives[1]
    ties = [
        (value, point)
        for point in others
        if point.outcome is not None
        and (value := point.outcome.value(second)) is not None
        and _is_close(best, point.outcome)
    ]
    if not ties or (mildest := min(ties, key=lambda tie: tie[0]))[1].number == best_point.number:
        return Choice(best_point, most)
    value, point = mildest
    assert point.outcome is not None
    return Choice(
        point,
        f"it lies within one standard error of the best of {counted_points(feasible)} within the constraints "
        f"({point.outcome.mean_gain:+.3f} against {best.mean_gain:+.3f}) and costs less: "
        f"{second} {value:.3g} instead of {best.value(second):.3g}",
    )


def _is_close(best: Outcome, other: Outcome) -> bool:
    """Whether it refuses less by at most one standard error of the difference, paired by prompt.

    No test: an exact one calls two prompts of any number a tie, and takes them for a cost that is smaller by a trifle.
    """
    before = _refusals(best)
    change = _by_prompt(other, before, _prompts(before))
    return len(change) > 1 and -fmean(change) <= stdev(change) / math.sqrt(len(change)) + 1e-12


def _is_shown(outcome: Outcome, tried: int) -> bool:
    return outcome.mean_gain > 0 and outcome.p_value * tried <= ALPHA


def _dearest(read: Sequence[tuple[Point, Outcome]]) -> str:
    """The constraints that most points break."""
    broken: dict[str, int] = {}
    for _, outcome in read:
        for metric in {loss["metric"] for loss in outcome.losses if not loss["within"]}:
            broken[metric] = broken.get(metric, 0) + 1
    return ", ".join(f"{metric} in {count}" for metric, count in sorted(broken.items(), key=lambda item: -item[1]))


def _refusals(outcome: Outcome) -> dict[str, dict[str, float | bool]]:
    """Edited language -> prompt -> what was read of refusals."""
    reading = reading_of(outcome.reading)
    return {gain["language"]: dict(reading[gain["language"], REFUSED]) for gain in outcome.gains}


def paired_p(first: Outcome, second: Outcome) -> float:
    """Two-sided test that two edited models refuse equally over the edited languages, paired by prompt."""
    return mean_change_p(_refusals(first), _refusals(second))


def optimism(
    points: Sequence[Point], before: Mapping[str, Mapping[str, float | bool]], seed: int = 0
) -> Optimism | None:
    """How much of a winner's gain to expect on other prompts.

    Prompts are drawn with replacement, the point that gains most on those drawn is chosen, and read on those that were
    not drawn (Tsamardinos, Greasidou and Borboudakis, *Bootstrapping the out-of-sample predictions for efficient and
    accurate cross-validation*, Machine Learning 2018: BBC-CV).

    Args:
        points: Points within the constraints.
        before: Edited language -> prompt -> what was read of the unedited model.
        seed: Seed of the draws.

    Returns:
        The expectation; None for fewer than two points or prompts.
    """
    outcomes = [point.outcome for point in points if point.outcome is not None and point.outcome.feasible]
    prompts = _prompts(before)
    if len(outcomes) < 2 or len(prompts) < 2:
        return None
    gains = np.array([_by_prompt(outcome, before, prompts) for outcome in outcomes])
    rng = np.random.default_rng(seed)
    outside = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(prompts), size=len(prompts))
        left = np.setdiff1d(np.arange(len(prompts)), drawn)
        if len(left):
            winner = int(np.nanmean(gains[:, drawn], axis=1).argmax())
            outside.append(float(np.nanmean(gains[winner, left])))
    return Optimism(float(np.nanmean(gains, axis=1).max()), fmean(outside), len(outcomes), len(prompts))


def _prompts(read: Mapping[str, Mapping[str, float | bool]]) -> list[str]:
    return sorted({prompt for items in read.values() for prompt in items})


def _by_prompt(
    outcome: Outcome, before: Mapping[str, Mapping[str, float | bool]], prompts: Sequence[str]
) -> list[float]:
    """Mean gain over the languages, of every prompt; not a number where it was not read."""
    after = _refusals(outcome)
    return [
        fmean(found)
        if (
            found := [
                float(after[language][prompt]) - float(items[prompt])
                for language, items in before.items()
                if prompt in items
            ]
        )
        else math.nan
        for prompt in prompts
    ]


def agreement(signal: Sequence[Outcome], judged: Sequence[Outcome]) -> list[Agreement]:
    """Rank agreement of two readings of the same points, language by language.

    Args:
        signal: Outcomes by the signal.
        judged: Outcomes by the judge, in the same order.
    """
    found = []
    for language in dict.fromkeys(gain["language"] for outcome in judged for gain in outcome.gains):
        pairs = [(_gain(cheap, language), _gain(dear, language)) for cheap, dear in zip(signal, judged, strict=True)]
        tau = float(kendalltau(*zip(*pairs, strict=True)).statistic) if len(pairs) > 1 else math.nan
        found.append(Agreement(language, *_interval(tau, len(pairs)), len(pairs)))
    return found


def _gain(outcome: Outcome, language: str) -> float:
    return float(next(gain["difference"] for gain in outcome.gains if gain["language"] == language))


def _interval(tau: float, n: int) -> tuple[float | None, float | None, float | None]:
    if math.isnan(tau):
        return None, None, None
    if n < 5 or abs(tau) == 1:
        return tau, None, None
    centre, half = math.atanh(tau), 1.96 * math.sqrt(0.437 / (n - 4))
    return tau, math.tanh(centre - half), math.tanh(centre + half)


def spread(points: Sequence[Point], chosen: Sequence[Point], count: int) -> list[Point]:
    """Points besides the chosen ones, evenly over the order of their scores: to see whether the signal can be trusted.

    Those of the front alone would say little: they are alike.
    """
    taken = {point.number for point in chosen}
    others = [point for point in points if point.outcome is not None and point.number not in taken]
    others.sort(key=lambda point: point.outcome.score if point.outcome else 0.0)
    places = np.linspace(0, len(others) - 1, min(count, len(others))).round().tolist()
    return [others[place] for place in dict.fromkeys(int(each) for each in places)]


def plain_objectives(objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """What is made better and in which direction, for readers of results."""
    return [{"name": name, "better": "higher" if name == REFUSED else "lower"} for name in objectives]


def counted_points(count: int) -> str:
    """So many points, in words: `1 point`, `12 points`."""
    return "1 point" if count == 1 else f"{count} points"
