from __future__ import annotations

import math
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.stats import benjamini_hochberg, holm
from polysafe.stats.multiplicity import adjust_p

p_values = st.floats(0.0, 1.0, allow_nan=False)


def by_closure(p: list[float]) -> list[float]:
    """Holm from its definition as a closed test: reject i if Bonferroni rejects every subset that holds i."""
    everyone = range(len(p))
    subsets = [subset for size in range(1, len(p) + 1) for subset in combinations(everyone, size)]
    return [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in everyone]


def test_textbook_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_no_tests_and_one_test() -> None:
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_a_correction_goes_by_its_name() -> None:
    p = [0.01, 0.02, 0.03]
    assert adjust_p(p, "holm") == holm(p)
    assert adjust_p(p, "benjamini_hochberg") == benjamini_hochberg(p) != holm(p)


@given(st.lists(p_values, min_size=1, max_size=7))
def test_is_the_closed_bonferroni_test(p: list[float]) -> None:
    assert holm(p) == pytest.approx(by_closure(p), abs=1e-12)


@given(st.lists(p_values, min_size=1, max_size=40))
def test_never_smaller_than_raw_never_larger_than_bonferroni_and_keeps_order(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, value in zip(p, adjusted, strict=True):
        assert raw <= value <= min(1.0, len(p) * raw) + 1e-12
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@given(st.lists(p_values, min_size=1, max_size=10), st.randoms())
def test_does_not_depend_on_the_order_given(p: list[float], random: Random) -> None:
    order = list(range(len(p)))
    random.shuffle(order)
    shuffled = holm([p[i] for i in order])
    assert shuffled == [holm(p)[i] for i in order]


def test_twenty_languages_cannot_be_significant_by_one_lucky_cell() -> None:
    assert min(holm([0.02] + [0.5] * 19)) == pytest.approx(0.4)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_refuses_what_is_not_a_p_value(p: float) -> None:
    with pytest.raises(DataError, match="not a p-value"):
        holm([0.5, p])
