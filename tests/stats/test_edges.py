"""The new statistics at their edges: nothing, one, all alike, missing sides, many languages, broken input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.stats import (
    Calibration,
    Interval,
    correct_rate,
    detectable_paired,
    detectable_unpaired,
    gap_rows,
    paired_difference,
    paired_interval,
    power_paired,
    power_unpaired,
    size_paired,
    size_unpaired,
    tango,
    wilson,
    wilson_clustered,
)
from polysafe.stats.clusters import Design
from polysafe.stats.compare import compare_outcomes

Z, T9 = 1.959963984540054, 2.2621571628540993
"""Quantiles of 97.5 % of the normal distribution and of Student's with nine degrees of freedom, from tables."""
BITS = st.lists(st.booleans(), min_size=1, max_size=40)


@pytest.mark.fault(23, "no items and one")
def test_nothing_has_no_interval() -> None:
    assert wilson_clustered([], None) is None
    assert tango(0, 0, 0) is None
    assert correct_rate(0, 0, Calibration(10, 9, 10, 9)) is None
    assert paired_difference([], []).difference is None


@pytest.mark.fault(23, "all alike")
@pytest.mark.parametrize("outcome", [True, False])
def test_all_alike_claims_no_certainty(outcome: bool) -> None:
    for n in (1, 10):
        ends = paired_interval([outcome] * n, [outcome] * n)
        assert ends is not None
        assert ends.low < 0 < ends.high


@given(BITS)
def test_intervals_hold_their_estimate(outcomes: list[bool]) -> None:
    rate = sum(outcomes) / len(outcomes)
    clusters = [i // 2 for i in range(len(outcomes))]
    plain = wilson(sum(outcomes), len(outcomes))
    clustered = wilson_clustered(outcomes, clusters)
    assert plain is not None
    assert clustered is not None
    assert 0 <= clustered.low <= rate <= clustered.high
    assert clustered.low <= plain.low + 1e-12
    assert clustered.high >= plain.high - 1e-12


@given(BITS, st.data())
def test_turning_round_turns_the_difference_round(before: list[bool], data: st.DataObject) -> None:
    after = data.draw(st.lists(st.booleans(), min_size=len(before), max_size=len(before)))
    there, back = paired_difference(before, after), paired_difference(after, before)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.low == pytest.approx(-back.high, abs=1e-9)  # type: ignore[operator]
    assert there.difference == pytest.approx(-back.difference)  # type: ignore[operator]
    assert there.low <= there.difference <= there.high  # type: ignore[operator]


def lang_reiczigel(successes: int, n: int, judge: Calibration) -> tuple[float, float]:
    """The interval from the equations of Lang and Reiczigel (2014)."""
    sure = (judge.found + 1) / (judge.positives + 2)
    clear = (judge.cleared + 1) / (judge.negatives + 2)
    spread = [share * (1 - share) / m for share, m in ((sure, judge.positives + 2), (clear, judge.negatives + 2))]
    told = (n * successes / n + Z**2 / 2) / (n + Z**2)
    rate = (told + clear - 1) / (sure + clear - 1)
    moved = rate + 2 * Z**2 * (rate * spread[0] - (1 - rate) * spread[1])
    variance = told * (1 - told) / (n + Z**2) + rate**2 * spread[0] + (1 - rate) ** 2 * spread[1]
    half = Z * math.sqrt(variance) / (sure + clear - 1)
    return moved - half, moved + half


def test_the_correction() -> None:
    judge = Calibration(100, 90, 100, 80)
    found = correct_rate(40, 100, judge)
    assert found is not None
    assert found.rate == pytest.approx((0.4 - 0.2) / 0.7)
    assert (found.n, found.observed, found.sensitivity, found.specificity) == (100, 0.4, 0.9, 0.8)
    assert not found.clamped
    low = correct_rate(18, 100, judge)
    assert low is not None
    assert (low.rate, low.clamped) == (0.0, True)
    assert low.high > 0
    assert found.interval == pytest.approx(lang_reiczigel(40, 100, judge))
    perfect = correct_rate(30, 100, Calibration(10**7, 10**7, 10**7, 10**7))
    assert perfect is not None
    assert perfect.interval == pytest.approx(wilson(30, 100), abs=2e-3)
    with pytest.raises(DataError, match="no better than chance"):
        correct_rate(5, 10, Calibration(10, 5, 10, 5))
    with pytest.raises(DataError, match="do not show both kinds"):
        Calibration(0, 0, 10, 9)
    with pytest.raises(DataError, match="is not a count"):
        Calibration(10, 11, 10, 9)


@pytest.mark.parametrize("bad", [[0.5], [math.nan], ["yes"], ["1", "0"], [b"1"], [None], [[True]]])
def test_outcomes_are_yes_or_no(bad: Any) -> None:
    with pytest.raises(DataError):
        wilson_clustered(bad, None)


def test_sides_must_match() -> None:
    with pytest.raises(DataError, match="do not make pairs"):
        paired_difference([True], [True, False])
    with pytest.raises(DataError, match="are not counts"):
        tango(5, 6, 10)
    with pytest.raises(DataError, match="cluster names") as caught:
        wilson_clustered([True, False], ["a"])
    assert caught.value.remedy
    for rates in ({"discordant": 1.2, "difference": 0.1}, {"discordant": 0.1, "difference": 0.2}):
        with pytest.raises(DataError):
            power_paired(10, **rates)


def test_sizes_and_detectable_differences_agree() -> None:
    size = size_paired(0.2, 0.1)
    assert power_paired(size, 0.2, 0.1) >= 0.8 > power_paired(size - 1, 0.2, 0.1)
    smallest = detectable_paired(315, 0.2)
    assert smallest is not None
    assert power_paired(315, 0.2, smallest) == pytest.approx(0.8, abs=1e-9)
    assert detectable_paired(3, 0.2) is None
    with pytest.raises(DataError, match="no number of items"):
        size_unpaired(0.3, 0.3)
    with pytest.raises(DataError, match="no number of items"):
        size_paired(0.2, 0.0)


def test_groups_of_one_item_can_be_compared_and_none_cannot() -> None:
    assert detectable_unpaired(0.5, 1) == (None, None)
    assert 0.5 < power_unpaired(0.0, 1.0, 1) < power_unpaired(0.0, 1.0, 1, 2) < 0.9
    with pytest.raises(DataError, match="cannot be compared"):
        detectable_unpaired(0.5, 0)
    with pytest.raises(DataError, match="cannot be compared"):
        power_unpaired(0.0, 1.0, 1, 0)


def table(**rates: float) -> dict[tuple[str, str], dict[str, bool]]:
    return {(language, "unsafe"): {f"p{i}": i < 100 * rate for i in range(100)} for language, rate in rates.items()}


def test_gaps_to_the_pivot() -> None:
    rows = {row.language: row for row in gap_rows("m", table(en=0.1, sw=0.5, th=0.1), "en")}
    assert set(rows) == {"sw", "th", "all"}
    swahili, thai, pooled = rows["sw"], rows["th"], rows["all"]
    assert swahili.difference == pytest.approx(0.4)
    assert swahili.p_value == pytest.approx(2 * 0.5**40)
    assert swahili.p_adjusted == pytest.approx(4 * 0.5**40)
    assert (thai.difference, thai.p_value) == (0.0, 1.0)
    assert (pooled.n, pooled.clusters, pooled.p_adjusted) == (200, 100, None)
    assert pooled.difference == pytest.approx(0.2)
    assert isinstance(swahili.interval, Interval)
    assert swahili.interval.low < 0.4 < swahili.interval.high


@pytest.mark.fault(23, "pairs that lack a side")
def test_prompts_that_a_side_lacks_are_left_out_and_counted() -> None:
    outcomes = table(en=0.1, sw=0.5)
    del outcomes["en", "unsafe"]["p0"]
    outcomes["sw", "unsafe"].pop("p99")
    (row,) = gap_rows("m", outcomes, "en")
    assert (row.n, row.only_language, row.only_pivot) == (98, 1, 1)
    with pytest.raises(DataError, match=r"pivot|lacks"):
        gap_rows("m", table(sw=0.5), "en")


@pytest.mark.fault(23, "many languages at once")
def test_twenty_languages_at_once() -> None:
    languages = {f"l{i}": 0.5 for i in range(20)}
    rows = compare_outcomes("m", table(**languages), table(**{**languages, "l0": 0.3}))
    adjusted = {row.language: row.p_adjusted for row in rows}
    assert adjusted["l0"] == pytest.approx(20 * 2 * 0.5**20)
    assert all(value == 1.0 for language, value in adjusted.items() if language != "l0")


@pytest.mark.parametrize(("telling", "worth"), [(0, 10.0), (1, 10.0), (2, 9.0), (3, 9.0)])
def test_two_clusters_that_differ_are_enough_to_estimate_a_variance(telling: int, worth: float) -> None:
    """Ten pairs of copies are worth ten items where nothing is estimated, and nine by the variance of their totals."""
    values = np.repeat(np.arange(10) < telling, 2).astype(float)
    size = Design.of(np.repeat(np.arange(10), 2)).effective_size(values, 0.95)
    assert size == pytest.approx(worth * (Z / T9) ** 2)
