"""Agreement of rankings, against the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from polysafe.errors import DataError
from polysafe.stats.ranks import rank_agreement


def test_the_coefficients_are_their_definitions() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=12), draw.normal(size=12)
    found = rank_agreement(first.tolist(), second.tolist())
    pairs = list(itertools.combinations(range(12), 2))
    tau = sum(np.sign((first[i] - first[j]) * (second[i] - second[j])) for i, j in pairs) / len(pairs)
    assert found.kendall == pytest.approx(float(tau))
    apart = first.argsort().argsort() - second.argsort().argsort()
    assert found.spearman == pytest.approx(1 - 6 * float((apart**2).sum()) / (12 * (12**2 - 1)))
    assert found.kendall_low is not None
    assert found.kendall_high is not None
    half = math.atanh(found.kendall_high) - math.atanh(found.kendall_low)
    assert half == pytest.approx(2 * 1.959964 * math.sqrt(0.437 / 8), rel=1e-5)


def test_the_interval_holds_the_truth() -> None:
    """A bivariate normal of correlation ρ has τ = 2/π·asin ρ."""
    draw, truth, held = np.random.default_rng(1), 2 / math.pi * math.asin(0.6), 0
    for _ in range(300):
        first = draw.normal(size=20)
        second = 0.6 * first + 0.8 * draw.normal(size=20)
        found = rank_agreement(first.tolist(), second.tolist())
        assert found.kendall_low is not None
        assert found.kendall_high is not None
        held += found.kendall_low <= truth <= found.kendall_high
    assert 270 <= held <= 297


def test_what_cannot_be_ranked() -> None:
    assert rank_agreement([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).kendall is None
    assert rank_agreement([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).kendall_low is None
    perfect = rank_agreement([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0])
    assert perfect.kendall == pytest.approx(-1)
    assert perfect.kendall_low == perfect.kendall
    with pytest.raises(DataError, match="cannot be ranked"):
        rank_agreement([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="not a number"):
        rank_agreement([1.0, math.nan], [1.0, 2.0])
