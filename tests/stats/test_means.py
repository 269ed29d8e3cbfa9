"""Means with intervals against scipy, and their paired gaps and changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from polysafe.stats.means import mean_changes, mean_gaps, mean_rows, student_interval
from polysafe.stats.multiplicity import holm

NUMBERS = st.lists(st.floats(-50, 50), min_size=2, max_size=40).filter(lambda values: np.ptp(values) > 1e-3)


@given(NUMBERS)
def test_the_textbook(values: list[float]) -> None:
    span, p = student_interval(values)
    test = stats.ttest_1samp(values, 0.0)
    expected = test.confidence_interval(0.95)
    assert span == pytest.approx((expected.low, expected.high))
    assert p == pytest.approx(test.pvalue, abs=1e-12)


@given(NUMBERS)
def test_a_value_that_is_there_twice_is_one_observation(values: list[float]) -> None:
    names = [str(place) for place in range(len(values))]
    twice, _ = student_interval([*values, *values], [*names, *names])
    assert twice == pytest.approx(student_interval(values)[0])


def test_fewer_than_two_clusters_have_no_interval() -> None:
    assert student_interval([]) == (None, None)
    assert student_interval([1.0]) == (None, None)
    assert student_interval([1.0, 2.0], ["a", "a"]) == (None, None)


def test_equal_values() -> None:
    assert student_interval([0.0, 0.0, 0.0]) == ((0.0, 0.0), 1.0)
    assert student_interval([2.0, 2.0]) == ((2.0, 2.0), 0.0)


def test_gaps_are_paired_by_prompt_and_adjusted() -> None:
    draw = np.random.default_rng(0)
    base = {f"s/{i}": float(draw.normal()) for i in range(20)}
    values = {
        ("en", "m"): base,
        ("sw", "m"): {name: value - 1 + 0.1 * float(draw.normal()) for name, value in base.items()},
        ("bn", "m"): {name: float(draw.normal()) for name in list(base)[:15]} | {"s/other": 9.0},
        ("bn", "only"): {"s/1": 0.0},
    }
    gaps = {gap.language: gap for gap in mean_gaps("model", values, "en")}
    assert set(gaps) == {"sw", "bn"}
    assert gaps["bn"].n == 15
    paired = stats.ttest_rel([values["sw", "m"][name] for name in base], list(base.values()))
    assert gaps["sw"].p_value == pytest.approx(paired.pvalue)
    assert gaps["sw"].difference == pytest.approx(-1, abs=0.1)
    raw = [gaps[code].p_value for code in gaps]
    assert [gaps[code].p_adjusted for code in gaps] == pytest.approx(holm([p for p in raw if p is not None]))
    rows = {(row.language, row.metric): row for row in mean_rows("model", values)}
    assert rows["bn", "only"].low is None
    assert rows["en", "m"].mean == pytest.approx(np.mean(list(base.values())))


def test_copies_of_a_prompt_are_one_cluster_of_gaps_changes_and_means() -> None:
    names = {"a": "one", "b": "one", "c": "two", "d": "three"}
    old = {("en", "m"): dict(zip("abcd", (0.0, 0.0, 0.0, 0.0), strict=True))}
    new = {("en", "m"): dict(zip("abcd", (1.0, 2.0, 4.0, 3.0), strict=True))}
    span, p = student_interval([1.0, 2.0, 4.0, 3.0], list(names.values()))
    assert span is not None
    (gap,) = mean_gaps("model", old | {("sw", "m"): new["en", "m"]}, "en", names)
    (change,) = mean_changes("edit", old, new, names)
    (row,) = mean_rows("model", new, names)
    assert (gap.low, gap.high, gap.p_value) == (change.low, change.high, change.p_value) == (*span, p)
    assert (row.low, row.high) == span != student_interval([1.0, 2.0, 4.0, 3.0])[0]


def test_changes_are_paired_by_prompt() -> None:
    before = {("en", "m"): {"a": 1.0, "b": 2.0, "c": 7.0}, ("sw", "m"): {"a": 1.0}}
    after = {("en", "m"): {"a": 2.0, "b": 2.5}}
    english, swahili = mean_changes("edit", before, after)
    assert (english.method, english.language, english.metric) == ("edit", "en", "m")
    assert (english.before, english.after, english.n) == (1.5, 2.25, 2)
    assert english.difference == 0.75
    assert english.low is not None
    assert english.high is not None
    assert english.low < 0.75 < english.high
    assert (swahili.language, swahili.n, swahili.difference, swahili.p_adjusted) == ("sw", 0, None, None)
