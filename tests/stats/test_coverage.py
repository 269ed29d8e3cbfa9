"""Whether intervals hold the truth as often as they say: summed exactly where that can be, else simulated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from polysafe.stats import (
    Calibration,
    correct_rate,
    mcnemar_clustered,
    paired_interval,
    power_paired,
    tango,
    wilson,
    wilson_clustered,
)

N = 315
RATES = np.round(np.arange(0.02, 0.985, 0.01), 2)


def wilson_coverage(rate: float) -> float:
    held = [k for k in range(N + 1) if (ends := wilson(k, N)) is not None and ends.low <= rate <= ends.high]
    return float(stats.binom.pmf(held, N, rate).sum())


def test_wilson_covers_as_it_says() -> None:
    """Exact, at n = 315 and every rate from 2 % to 98 %."""
    covered = [wilson_coverage(float(rate)) for rate in RATES]
    assert min(covered) >= 0.93
    assert max(covered) <= 0.97
    assert abs(np.mean(covered) - 0.95) < 0.005


def test_the_paired_test_holds_its_level() -> None:
    """Exact: the chance of a difference where there is none, for every share of items that change."""
    assert max(power_paired(N, float(share), 0.0) for share in np.arange(0.01, 1.0, 0.02)) <= 0.05


def test_tango_covers_as_it_says() -> None:
    """Exact, over all tables of 60 pairs, for several truths."""
    n = 60
    intervals = {(b, c): tango(b, c, n) for b in range(n + 1) for c in range(n + 1 - b)}
    for lost, gained in ((0.05, 0.05), (0.2, 0.05), (0.3, 0.3), (0.02, 0.2)):
        truth, covered = gained - lost, 0.0
        for (b, c), ends in intervals.items():
            if ends is not None and ends.low <= truth <= ends.high:
                covered += stats.multinomial.pmf([b, c, n - b - c], n, [lost, gained, 1 - lost - gained])
        assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.8])
@pytest.mark.parametrize(("sensitivity", "specificity"), [(0.9, 0.95), (0.75, 0.85)])
def test_a_corrected_rate_covers_as_it_says(rate: float, sensitivity: float, specificity: float) -> None:
    """315 answers, 200 labels of either kind; the calibration is drawn anew every time."""
    draw, runs, held, naive = np.random.default_rng(0), 2000, 0, 0
    for _ in range(runs):
        found, cleared = draw.binomial(200, sensitivity), draw.binomial(200, specificity)
        said = draw.binomial(N, rate * sensitivity + (1 - rate) * (1 - specificity))
        corrected = correct_rate(int(said), N, Calibration(200, int(found), 200, int(cleared)))
        plain = wilson(int(said), N)
        assert corrected is not None
        assert plain is not None
        held += corrected.low <= rate <= corrected.high
        naive += plain.low <= rate <= plain.high
    assert 0.93 <= held / runs <= 0.975
    if rate in (0.05, 0.8):
        assert naive / runs < 0.9  # what an uncorrected rate claims


def duplicated(draw: np.random.Generator, rate: float) -> tuple[list[bool], list[int]]:
    """100 prompts, each asked in three languages that all agree."""
    outcomes = draw.random(100) < rate
    return [bool(x) for x in np.repeat(outcomes, 3)], [int(x) for x in np.repeat(np.arange(100), 3)]


@pytest.mark.fault(23, "prompts that repeat")
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_clusters_are_not_independent_items(rate: float) -> None:
    draw, runs = np.random.default_rng(1), 600
    held = {"clustered": 0, "naive": 0}
    for _ in range(runs):
        outcomes, clusters = duplicated(draw, rate)
        for name, ends in (
            ("clustered", wilson_clustered(outcomes, clusters)),
            ("naive", wilson(sum(outcomes), len(outcomes))),
        ):
            assert ends is not None
            held[name] += ends.low <= rate <= ends.high
    assert held["clustered"] / runs >= 0.93
    assert held["naive"] / runs < 0.85


def test_paired_clusters_cover_and_hold_their_level() -> None:
    draw, runs = np.random.default_rng(2), 500
    held = rejected = 0
    for _ in range(runs):
        before, clusters = duplicated(draw, 0.4)
        after, _ = duplicated(draw, 0.4)
        ends = paired_interval(before, after, clusters)
        assert ends is not None
        held += ends.low <= 0.0 <= ends.high
        net = np.add.reduceat(np.array(after, int) - np.array(before, int), np.arange(0, 300, 3))
        rejected += mcnemar_clustered([int(x) for x in net]) <= 0.05
    assert held / runs >= 0.93
    assert rejected / runs <= 0.06
