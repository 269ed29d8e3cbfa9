"""How alike two scores rank the same things."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from polysafe.errors import DataError
from polysafe.stats.intervals import two_sided_z

_FEWEST = 5


@dataclass(frozen=True)
class RankAgreement:
    """Agreement of two rankings, −1 … 1.

    Attributes:
        n: Number of things that are ranked.
        kendall: Kendall's τ_b; None where either score is the same for all.
        kendall_low: Lower end of its interval; None for fewer than five things.
        kendall_high: Upper end of it.
        spearman: Spearman's ρ.
        spearman_low: Lower end of its interval.
        spearman_high: Upper end of it.
    """

    n: int
    kendall: float | None
    kendall_low: float | None
    kendall_high: float | None
    spearman: float | None
    spearman_low: float | None
    spearman_high: float | None


def rank_agreement(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> RankAgreement:
    """Kendall's and Spearman's coefficients of two scores of the same things.

    Their intervals are those of Fisher's transformation, with variance 0.437 / (n − 4) for τ and 1.06 / (n − 3) for ρ
    (Fieller, Hartley and Pearson, *Tests for rank correlation coefficients*, Biometrika 1957): as if the things were
    drawn at random, which the blocks of one model are not.

    Raises:
        DataError: The scores are not as many, or one is not a number.
    """
    from scipy.stats import kendalltau, spearmanr

    if len(first) != len(second):
        raise DataError(f"{len(first)} scores cannot be ranked against {len(second)}")
    if not all(math.isfinite(value) for value in (*first, *second)):
        raise DataError("a score that is to be ranked is not a number")
    n = len(first)
    if n < 2 or min(len(set(first)), len(set(second))) < 2:
        return RankAgreement(n, None, None, None, None, None, None)
    tau, rho = float(kendalltau(first, second).statistic), float(spearmanr(first, second).statistic)
    return RankAgreement(n, tau, *_fisher(tau, n, 0.437, 4, level), rho, *_fisher(rho, n, 1.06, 3, level))


def _fisher(value: float, n: int, factor: float, lost: int, level: float) -> tuple[float | None, float | None]:
    if n < _FEWEST:
        return None, None
    if abs(value) >= 1 - 1e-12:  # a perfect ranking says nothing about its own spread
        return value, value
    half = two_sided_z(level) * math.sqrt(factor / (n - lost))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)
