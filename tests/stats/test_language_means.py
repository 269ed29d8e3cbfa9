"""Means over languages: exact where they must be, and covering the truth as often as they say."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtri

from polysafe.errors import DataError
from polysafe.stats import (
    Interval,
    mean_interval,
    mean_rate,
    mean_shift,
    paired_interval,
    smallest_paired,
    wilson,
    wilson_clustered,
)
from polysafe.stats.compare import Outcomes

RUNS = 250


def cells(values: NDArray[np.bool_], metric: str = "unsafe") -> Outcomes:
    """Outcomes of prompts in languages, shape (prompts, languages)."""
    return {
        (f"l{place}", metric): {str(i): bool(x) for i, x in enumerate(column)} for place, column in enumerate(values.T)
    }


def draw(seed: np.random.Generator, prompts: int, rates: list[float], correlation: float) -> NDArray[np.bool_]:
    """Outcomes whose latent normal scores are correlated over the languages of a prompt, shape (prompts, languages)."""
    shared = seed.standard_normal((prompts, 1)) * correlation**0.5
    own = seed.standard_normal((prompts, len(rates))) * (1 - correlation) ** 0.5
    return np.asarray(shared + own < ndtri(np.array(rates)))


def test_with_all_prompts_in_all_languages_it_is_the_clustered_interval_of_all_items() -> None:
    values = draw(np.random.default_rng(0), 60, [0.2, 0.4, 0.3], 0.5)
    items, clusters = values.T.ravel().tolist(), list(range(60)) * 3
    found = mean_rate("m", "unsafe", cells(values))
    assert found.interval == pytest.approx(wilson_clustered(items, clusters))
    assert found.rate == pytest.approx(values.mean())
    assert (found.model, found.metric, found.languages) == ("m", "unsafe", ("l0", "l1", "l2"))
    assert (found.n, found.clusters) == (180, 60)
    after = draw(np.random.default_rng(1), 60, [0.1, 0.2, 0.3], 0.5)
    shift = mean_shift("m", "unsafe", cells(values), cells(after))
    assert shift.interval == pytest.approx(paired_interval(items, after.T.ravel().tolist(), clusters))


def test_one_language_is_its_own_interval() -> None:
    values = draw(np.random.default_rng(0), 60, [0.2], 0.5)
    found = mean_rate("m", "unsafe", cells(values))
    assert found.interval == pytest.approx(wilson(int(values.sum()), 60))


def test_every_language_weighs_the_same_however_many_prompts_it_has() -> None:
    outcomes = {("a", "unsafe"): {str(i): True for i in range(10)}, ("b", "unsafe"): {str(i): False for i in range(90)}}
    assert mean_rate("m", "unsafe", outcomes).rate == pytest.approx(0.5)


def test_tasks_that_share_no_prompt_are_independent() -> None:
    """Items are named alike in two tasks; they are no cluster."""
    values = draw(np.random.default_rng(0), 100, [0.5], 0.0)
    one = cells(values, "capability.a")
    two = {**one, **cells(values, "capability.b")}
    narrow, wide = mean_rate("m", "x", two).interval, mean_rate("m", "x", one).interval
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2**0.5, rel=0.02)


@pytest.mark.fault(21, "missing verdicts widen the interval")
def test_answers_without_a_verdict_widen_the_interval() -> None:
    values = np.zeros((50, 2), bool)
    likely = np.zeros((50, 2), bool)
    likely[:4] = True
    found = mean_rate("m", "unsafe", cells(values), possible=cells(likely))
    assert found.rate == 0.0
    assert found.high == mean_rate("m", "unsafe", cells(likely)).high
    shift = mean_shift("m", "unsafe", cells(values), cells(values), possible=(cells(likely), cells(likely)))
    assert shift.low < -0.08
    assert shift.high > 0.08


def test_the_size_of_a_shift_is_that_of_its_changes() -> None:
    """Three prompts change in both languages: they are worth as much whatever the others are."""
    changed = np.zeros((12, 2), bool)
    changed[:3] = True
    stay = np.zeros((12, 2), bool)
    stay[3:9, 1] = True
    low, high = (mean_shift("m", "unsafe", cells(same), cells(same | changed)) for same in (stay & False, stay))
    assert (low.difference, high.difference) == pytest.approx((0.25, 0.25))
    assert low.size == pytest.approx(high.size)
    assert low.size < 12 < low.n


def test_a_repeated_prompt_counts_once() -> None:
    values = np.repeat(draw(np.random.default_rng(0), 50, [0.4, 0.4], 0.5), 2, axis=0)
    twice = {str(i): str(i - i % 2) for i in range(100)}
    assert mean_rate("m", "unsafe", cells(values), twice).clusters == 50
    known, ignored = (mean_rate("m", "unsafe", cells(values), named).interval for named in (twice, None))
    assert known.high - known.low > 1.3 * (ignored.high - ignored.low)


def test_what_has_no_mean_is_refused() -> None:
    full = {("a", "unsafe"): {"1": True}}
    for nothing in ({}, {**full, ("b", "unsafe"): {}}):
        with pytest.raises(DataError, match="no items"):
            mean_rate("m", "unsafe", nothing)
    for other in ({("a", "unsafe"): {"2": True}}, {("b", "unsafe"): {"1": True}}):
        with pytest.raises(DataError, match="differ in their items"):
            mean_shift("m", "unsafe", full, other)


def averaged(values: NDArray[np.bool_]) -> Interval:
    """The mean of the ends of the languages' intervals."""
    spans = [span for column in values.T if (span := wilson(int(column.sum()), len(column))) is not None]
    found = mean_interval(spans)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("prompts", "languages", "rate", "correlation"),
    [(48, 3, 0.2, 0.5), (48, 10, 0.03, 0.9), (48, 10, 0.2, 0.0), (150, 5, 0.01, 0.9), (150, 5, 0.2, 0.5)],
)
def test_intervals_of_means_cover(prompts: int, languages: int, rate: float, correlation: float) -> None:
    """Rates differ between the languages, by half of their mean; `benchmarks.evidence.coverage` draws many more."""
    seed = np.random.default_rng([prompts, languages, int(100 * rate), int(10 * correlation)])
    rates = [rate * (0.5 + place / (languages - 1)) for place in range(languages)]
    held, widths = 0, np.zeros(2)
    for _ in range(RUNS):
        values = draw(seed, prompts, rates, correlation)
        found, ends = mean_rate("m", "unsafe", cells(values)).interval, averaged(values)
        held += found.low <= rate <= found.high
        widths += found.high - found.low, ends.high - ends.low
    assert held / RUNS >= 0.91  # three standard errors below 95 %
    if correlation == 0.0:
        assert widths[1] / widths[0] > 2.5  # what the mean of the ends gives away


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_intervals_of_paired_means_cover(correlation: float) -> None:
    seed, held, rejected = np.random.default_rng(int(10 * correlation)), 0, 0
    for _ in range(RUNS // 2):
        both = draw(seed, 48, [0.4] * 4 + [0.1] * 4, correlation)
        shift = mean_shift("m", "unsafe", cells(both[:, :4]), cells(both[:, 4:]))
        held += shift.low <= -0.3 <= shift.high
        same = draw(seed, 48, [0.2] * 8, correlation)
        rejected += mean_shift("m", "u", cells(same[:, :4]), cells(same[:, 4:])).p_value <= 0.05
    assert held / (RUNS // 2) >= 0.89  # three standard errors below 95 %
    assert rejected / (RUNS // 2) <= 0.11


@pytest.mark.parametrize(("n", "points"), [(48, 17.9), (315, 7.2)])
def test_the_smallest_difference_of_n_pairs(n: int, points: float) -> None:
    found = smallest_paired(n)
    assert found is not None
    assert 100 * found == pytest.approx(points, abs=0.05)


def test_few_pairs_need_that_more_than_a_fifth_changes() -> None:
    assert smallest_paired(20) == pytest.approx(0.366, abs=0.001)
    assert smallest_paired(4) is None
    known = [smallest_paired(n) or 1.0 for n in range(6, 60)]
    assert all(later <= earlier + 0.02 for earlier, later in pairwise(known))
