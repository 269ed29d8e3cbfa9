"""What sets share by chance, against scipy and against draws."""

from __future__ import annotations

import random
from statistics import mean

import pytest
from scipy.stats import hypergeom

from polysafe.errors import DataError
from polysafe.stats.overlap import chance_overlap


def test_one_stratum_is_the_hypergeometric_distribution() -> None:
    units, first, second = 60, 20, 15
    found = chance_overlap([(units, first, second)])
    shares = {k / (35 - k): float(hypergeom.pmf(k, units, first, second)) for k in range(16)}
    assert found.expected == pytest.approx(sum(index * share for index, share in shares.items()))
    for end, quantile in ((found.low, 0.025), (found.high, 0.975)):
        k = int(hypergeom.ppf(quantile, units, first, second))
        assert end == pytest.approx(k / (35 - k))


def test_strata_are_drawn_from_one_by_one() -> None:
    strata = [(40, 30, 5), (200, 20, 50)]
    found, draw = chance_overlap(strata), random.Random(0)
    indices = []
    for _ in range(4000):
        sets = [set(), set()]  # type: list[set[tuple[int, int]]]
        for place, (units, *sizes) in enumerate(strata):
            for chosen, size in zip(sets, sizes, strict=True):
                chosen |= {(place, unit) for unit in draw.sample(range(units), size)}
        indices.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    assert found.expected == pytest.approx(mean(indices), abs=0.002)
    assert 0.95 <= mean(found.low <= index <= found.high for index in indices) <= 0.995


def test_sets_that_cannot_differ_overlap_as_they_must() -> None:
    whole = chance_overlap([(8, 8, 4)])
    assert (whole.expected, whole.low, whole.high) == pytest.approx((0.5, 0.5, 0.5))
    assert chance_overlap([(8, 0, 3)]).high == 0.0
    assert chance_overlap([(8, 0, 0)]).expected == 1.0


def test_large_models_are_summed_too() -> None:
    found = chance_overlap([(11008, 2752, 2752)] * 6)
    assert found.low < found.expected < found.high
    assert found.expected == pytest.approx(1 / 7, abs=1e-3)


@pytest.mark.parametrize("stratum", [(4, 5, 1), (4, -1, 1)])
def test_impossible_sizes_are_refused(stratum: tuple[int, int, int]) -> None:
    with pytest.raises(DataError, match="not possible"):
        chance_overlap([stratum])
