"""How large a difference a given number of items can show, and how many items a difference needs.

Paired: the exact McNemar test of the same items before and after. Its power depends on the share of items that change
at all, which a pilot run tells. Unpaired: two models, or two languages, on different items. Items are independent here;
for clusters give the number of independent items that they amount to (n over the design effect). For one of k languages
with Holm's correction, `alpha` / k is a safe choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from polysafe.errors import DataError

_Enough: TypeAlias = Callable[[int], bool]
_PRECISION = 1e-12
_LARGEST = 10_000_000


class Detectable(NamedTuple):
    """The nearest rates that differ detectably from a given one; None where no rate below (above) does."""

    below: float | None
    above: float | None


def power_unpaired(first: float, second: float, n: int, n_second: int | None = None, *, alpha: float = 0.05) -> float:
    """Chance that a two-sided comparison of two independent rates finds a difference.

    Normal approximation after the arcsine transformation (Cohen 1988, chapter 6).

    Args:
        first: True rate of the first group.
        second: True rate of the second group.
        n: Items of the first group.
        n_second: Items of the second group, `n` where None.
        alpha: Level of the test.

    Raises:
        DataError: A rate or level is not one, or a group is empty.
    """
    _check_shares(first=first, second=second)
    _check_level(alpha)
    others = n if n_second is None else n_second
    if min(n, others) < 1:
        raise DataError(f"groups of {n} and {others} items cannot be compared")
    return _normal_power((_angle(first) - _angle(second)) * math.sqrt(n * others / (n + others)), alpha)


def detectable_unpaired(rate: float, n: int, *, alpha: float = 0.05, power: float = 0.8) -> Detectable:
    """The nearest rates that two groups of `n` items each would tell from `rate` with the wanted power.

    Raises:
        DataError: The rate, a level or `n` makes no sense.
    """
    _check_shares(rate=rate)
    _check_wanted(alpha, power)
    if n < 1:
        raise DataError(f"groups of {n} items cannot be compared")
    angle, step = _angle(rate), _needed_shift(alpha, power) * math.sqrt(2 / n)
    below, above = angle - step, angle + step
    return Detectable(
        below=math.sin(below / 2) ** 2 if below >= 0.0 else None,
        above=math.sin(above / 2) ** 2 if above <= math.pi else None,
    )


def size_unpaired(first: float, second: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items that each of two groups needs to tell `first` from `second` with the wanted power.

    Raises:
        DataError: The rates are equal or no rates, or a level makes no sense.
    """
    _check_shares(first=first, second=second)
    _check_wanted(alpha, power)
    effect = _angle(first) - _angle(second)
    if effect == 0.0:
        raise DataError(f"no number of items tells {first} from {second}")
    return math.ceil(2 * (_needed_shift(alpha, power) / effect) ** 2 - _PRECISION)


def power_paired(n: int, discordant: float, difference: float, *, alpha: float = 0.05) -> float:
    """Chance that the exact McNemar test of `n` items finds a difference, computed exactly.

    The number of changed items is binomial with `discordant`, and the direction of each a coin with chance
    (1 + difference / discordant) / 2 (Duffy 1984).

    Args:
        n: Items, each seen before and after.
        discordant: True share of items that change.
        difference: True rate after minus true rate before.
        alpha: Level of the test.

    Raises:
        DataError: A share or level is not one, `n` is negative, or the difference exceeds the share that changes.
    """
    _check_shares(discordant=discordant)
    _check_level(alpha)
    _check_difference(discordant, difference)
    if n < 0:
        raise DataError(f"{n} items cannot be compared")
    return _exact_power(n, discordant, difference, alpha)


def detectable_paired(n: int, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest difference that the exact McNemar test of `n` items finds with the wanted power.

    Args:
        n: Items, each seen before and after.
        discordant: True share of items that change.
        alpha: Level of the test.
        power: Wanted chance of finding the difference.

    Returns:
        The difference, at most `discordant`; None where even that would not be found.

    Raises:
        DataError: A share or level is not one, or `n` is negative.
    """
    from scipy.optimize import brentq

    _check_wanted(alpha, power)
    if power_paired(n, discordant, discordant, alpha=alpha) < power:
        return None
    if discordant == 0.0:
        return 0.0

    def lack(difference: float) -> float:
        return _exact_power(n, discordant, difference, alpha) - power

    return float(brentq(lack, 0.0, discordant, xtol=_PRECISION))


@lru_cache(maxsize=4096)
def smallest_paired(n: int, *, changed: float = 0.2, alpha: float = 0.05, power: float = 0.8) -> float | None:
    """The smallest difference that `n` pairs can show, for a page that knows no more than their number.

    As `detectable_paired`, where a share of the items changes; where the difference needs more than that, all that
    changes goes its way.

    Args:
        n: Items, each seen before and after.
        changed: Share of items that change, where that is enough.
        alpha: Level of the test.
        power: Wanted chance of finding the difference.

    Returns:
        The difference; None where not even a change of all items would be found.

    Raises:
        DataError: As for `detectable_paired`.
    """
    from scipy.optimize import brentq

    found = detectable_paired(n, changed, alpha=alpha, power=power)
    if found is not None:
        return found
    if power_paired(n, 1.0, 1.0, alpha=alpha) < power:
        return None

    def lack(share: float) -> float:
        return _exact_power(n, share, share, alpha) - power

    return float(brentq(lack, changed, 1.0, xtol=_PRECISION))


def size_paired(discordant: float, difference: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items that the exact McNemar test needs to find a difference with the wanted power.

    The power of an exact test rises in teeth. The number returned has the power, the one before it has not, and neither
    do the next n/20 (at least 20) numbers fall below it again.

    Args:
        discordant: True share of items that change.
        difference: True rate after minus true rate before.
        alpha: Level of the test.
        power: Wanted chance of finding the difference.

    Raises:
        DataError: There is no difference or more than can be, a level makes no sense, or ten million items are too few.
    """
    _check_shares(discordant=discordant)
    _check_wanted(alpha, power)
    _check_difference(discordant, difference)
    if difference == 0.0:
        raise DataError("no number of items finds a difference of 0")

    def enough(n: int) -> bool:
        return _exact_power(n, discordant, difference, alpha) >= power

    return _last_rise(enough, _first_rise(enough))


def _first_rise(enough: _Enough) -> int:
    """A number that is enough and whose predecessor is not, by doubling and halving."""
    low, high = 0, 8
    while not enough(high):
        low, high = high, high * 2
        if high > _LARGEST:
            raise DataError(f"more than {_LARGEST} items would be needed")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _last_rise(enough: _Enough, n: int) -> int:
    """The first number from `n` on after which none of the next tooth's width falls short."""
    last, candidate = n, n
    while candidate < last + max(20, last // 20):
        candidate += 1
        if not enough(candidate):
            last = candidate + 1
    return last


def _exact_power(n: int, discordant: float, difference: float, alpha: float) -> float:
    from scipy.stats import binom

    if discordant == 0.0:
        return 0.0
    # Numbers of changed items that practically never occur are left out, or a million items would take a minute.
    least, most = binom.ppf([1e-15, 1 - 1e-15], n, discordant)
    changed = np.arange(max(int(least) - 1, 0), min(int(most) + 1, n) + 1)
    critical = _critical(changed, alpha)
    chance = min((1 + difference / discordant) / 2, 1.0)
    tails = binom.cdf(critical, changed, chance) + binom.sf(changed - critical - 1, changed, chance)
    return float(binom.pmf(changed, n, discordant) @ np.where(critical < 0, 0.0, tails))


def _critical(changed: NDArray[np.int_], alpha: float) -> NDArray[np.float64]:
    """The largest smaller count that the exact McNemar test still rejects, -1 where it never does."""
    from scipy.stats import binom

    quantile = binom.ppf(alpha / 2, changed, 0.5)
    return np.asarray(np.where(binom.cdf(quantile, changed, 0.5) <= alpha / 2, quantile, quantile - 1))


def _normal_power(shift: float, alpha: float) -> float:
    from scipy.special import ndtr, ndtri

    z = -ndtri(alpha / 2)
    return float(ndtr(abs(shift) - z) + ndtr(-abs(shift) - z))


def _needed_shift(alpha: float, power: float) -> float:
    """The distance of two normal means, in standard errors of their difference, that is found with the power."""
    from scipy.optimize import brentq

    return float(brentq(lambda shift: _normal_power(shift, alpha) - power, 0.0, 100.0, xtol=_PRECISION))


def _angle(rate: float) -> float:
    return 2 * math.asin(math.sqrt(rate))


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0.0 <= share <= 1.0:
            raise DataError(f"{name} is a share of 0 … 1, not {share}")


def _check_level(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise DataError(f"the level of a test lies between 0 and 1, not at {alpha}")


def _check_wanted(alpha: float, power: float) -> None:
    _check_level(alpha)
    if not alpha < power < 1.0:
        raise DataError(f"a wanted power lies between the level of the test, {alpha}, and 1, not at {power}")


def _check_difference(discordant: float, difference: float) -> None:
    if not abs(difference) <= discordant:
        raise DataError(f"rates cannot differ by {difference} where a share of {discordant} changes")
