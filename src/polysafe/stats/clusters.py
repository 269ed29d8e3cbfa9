"""Items that share a prompt: duplicates, or one prompt in several languages.

Such items tend to agree, so that ten of them say less than ten prompts would. All of it rests on one number: how many
independent items would say as much (Kish 1965).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from polysafe.stats.intervals import Interval, score_interval, two_sided_z
from polysafe.stats.samples import codes, flags


@dataclass(frozen=True)
class Design:
    """Which items belong together, and what a mean over them is.

    Attributes:
        members: Cluster of every item, numbered from 0 without gaps, shape (n,), n ≥ 1.
        strata: Part of the mean that every item belongs to, numbered likewise: a language, or a task in a language.
        weights: Weight of every item in the mean, shape (n,), together 1.
    """

    members: NDArray[np.intp]
    strata: NDArray[np.intp]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, members: NDArray[np.intp], strata: NDArray[np.intp] | None = None) -> Self:
        """The unweighted mean of the means of the strata; the plain mean of all items where there are none."""
        parts = np.zeros_like(members) if strata is None else strata
        sizes = np.bincount(parts)
        return cls(members, parts, 1.0 / (sizes[parts] * sizes.size))

    def mean(self, values: NDArray[np.float64]) -> float:
        """The mean of the items' values."""
        if self.weights.min() == self.weights.max():
            return float(values.sum()) / values.size
        return float(self.weights @ values)

    def effective_size(self, values: NDArray[np.float64], level: float) -> float:
        """How many independent items would give an interval as wide as these do.

        The variance of the mean is the linearised one of a stratified sample of clusters, G/(G - 1) · Σ_g (Σ_{i in g}
        w_i (x_i - x̄_s))², with the mean x̄_s of the item's own stratum (Cochran 1977). It assumes nothing about the
        dependence within a cluster. The number is multiplied by (z/t)² with the quantile t of Student's distribution,
        because the variance was itself estimated (Korn & Graubard 1998; Dean & Pagano 2015). Its degrees of freedom are
        not G - 1 but one less than the clusters that differ from the most frequent total: of 48 prompts with three
        unsafe ones, three tell how unsafe answers go together. That never makes the number smaller than if the items of
        a cluster were copies of each other, which is also what is taken where the variance cannot be estimated.

        Args:
            values: Values of the items, whole numbers, shape (n,).
            level: Confidence level of the interval.

        Returns:
            The number, at most what the items would be worth if each was a cluster of its own, and exactly that where
            each is: n, where they weigh alike.
        """
        most = 1.0 / float(self.weights @ self.weights)
        count = int(self.members.max()) + 1
        if count == values.size:
            return float(count) if self.weights.min() == self.weights.max() else most
        shares = np.bincount(self.members, self.weights)
        copies = 1.0 / float(shares @ shares)
        if count == 1:
            return copies
        telling = count - int(np.unique(np.bincount(self.members, values), return_counts=True)[1].max())
        totals = self.totals(values)
        variance = count / (count - 1) * float(totals @ totals)
        if telling < 2 or variance == 0.0:
            return copies * _student(level, count - 1)
        spread = float(self.weights @ (values - self.mean(values)) ** 2)
        size = min(most, spread / variance)
        return max(min(size, copies) * _student(level, count - 1), size * _student(level, telling - 1))

    def totals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """For each cluster, what its items add to the mean's error, shape (clusters,)."""
        own = np.bincount(self.strata, values) / np.bincount(self.strata)
        return np.asarray(np.bincount(self.members, self.weights * (values - own[self.strata])), np.float64)

    def wilson(self, values: NDArray[np.float64], level: float) -> Interval:
        """Wilson's interval of the mean of yes-or-no values, of the effective number of items."""
        return score_interval(self.mean(values), self.effective_size(values, level), two_sided_z(level))


def wilson_clustered(
    outcomes: Sequence[bool], clusters: Sequence[Hashable] | None, level: float = 0.95
) -> Interval | None:
    """Wilson's interval of a rate over items of which some belong together.

    The number of items is replaced by `Design.effective_size`; without clusters this is `wilson`. It is deterministic
    and keeps a sensible width at 0 and 1, where a bootstrap has none.

    Args:
        outcomes: Whether the metric is true of each item.
        clusters: Cluster of each item (of the prompt that it came from), or None where items are independent.
        level: Confidence level, strictly between 0 and 1.

    Returns:
        The interval, or None where there are no items.

    Raises:
        DataError: An outcome is neither true nor false, a cluster name is missing, or the level makes no sense.
    """
    values = flags(outcomes)
    members = codes(clusters, values.size)
    two_sided_z(level)
    return Design.of(members).wilson(values, level) if values.size else None


def _student(level: float, freedom: int) -> float:
    """(z/t)², by which an estimated variance makes a number of items smaller."""
    from scipy.stats import t

    return (two_sided_z(level) / float(t.ppf(0.5 + level / 2, freedom))) ** 2
