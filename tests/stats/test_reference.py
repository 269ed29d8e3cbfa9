"""Agreement with scipy and statsmodels, to nine digits."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, proportion_effectsize

from polysafe.stats import (
    benjamini_hochberg,
    detectable_unpaired,
    holm,
    mcnemar_clustered,
    mcnemar_exact,
    newcombe_paired,
    pivot_exact,
    power_paired,
    power_unpaired,
    size_unpaired,
    tango,
    wilson,
    wilson_clustered,
)

P_VALUES = st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=20)


@given(st.integers(0, 315), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson(successes: int, level: float) -> None:
    low, high = proportion_confint(successes, 315, 1 - level, "wilson")
    found = wilson(successes, 315, level)
    assert found == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=1e-9)
    outcomes = [True] * successes + [False] * (315 - successes)
    assert wilson_clustered(outcomes, None, level) == pytest.approx(found, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar(lost: int, gained: int) -> None:
    wanted = float(mcnemar([[3, lost], [gained, 5]], exact=True).pvalue)
    assert mcnemar_exact(lost, gained) == pytest.approx(min(1.0, wanted), abs=1e-9)
    assert mcnemar_clustered([-1] * lost + [1] * gained) == pytest.approx(mcnemar_exact(lost, gained), abs=1e-9)
    prompts = [(True, 0, 1)] * lost + [(False, 1, 1)] * gained + [(True, 1, 1)] * 4
    assert pivot_exact(prompts) == pytest.approx(mcnemar_exact(lost, gained), abs=1e-9)


@given(P_VALUES)
def test_multiplicity(p_values: list[float]) -> None:
    with patch("gc.collect"):  # statsmodels collects all garbage in every call, which takes longer than all else here
        wanted = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(wanted, abs=1e-9)
    assert benjamini_hochberg(p_values) == pytest.approx(multipletests(p_values, method="fdr_bh")[1], abs=1e-9)


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.integers(20, 2000))
def test_power_of_two_groups(first: float, second: float, n: int) -> None:
    effect = proportion_effectsize(first, second)
    wanted = NormalIndPower().power(effect, n, 0.05, 1.0)
    assert power_unpaired(first, second, n) == pytest.approx(float(wanted), abs=1e-9)


def test_size_and_detectable_difference_of_two_groups() -> None:
    wanted = NormalIndPower().solve_power(proportion_effectsize(0.3, 0.2), None, 0.05, 0.8)
    assert size_unpaired(0.3, 0.2) == int(np.ceil(wanted))
    below, above = detectable_unpaired(0.3, 315)
    assert below is not None
    assert above is not None
    assert below < 0.3 < above
    for rate in (below, above):
        assert power_unpaired(0.3, rate, 315) == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize(("n", "discordant", "difference"), [(48, 0.5, 0.3), (315, 0.2, -0.08), (30, 0.1, 0.0)])
def test_power_of_pairs_by_enumeration(n: int, discordant: float, difference: float) -> None:
    """Every number of changed items and every direction, with its chance."""
    chance, wanted = (1 + difference / discordant) / 2, 0.0
    for changed in range(n + 1):
        rejected = [gained for gained in range(changed + 1) if mcnemar_exact(changed - gained, gained) <= 0.05]
        inner = stats.binom.pmf(rejected, changed, chance).sum() if rejected else 0.0
        wanted += stats.binom.pmf(changed, n, discordant) * inner
    assert power_paired(n, discordant, difference) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("table", "tango_wanted", "newcombe_wanted"),
    [
        # the example that Newcombe (1998) and Tango (1998) share: 36 and 12, 2 and 0 of 50 patients
        ((36, 12, 2, 0), (-0.3281, -0.0729), (-0.3242, -0.0726)),
    ],
)
def test_published_intervals_of_a_paired_difference(
    table: tuple[int, int, int, int], tango_wanted: tuple[float, float], newcombe_wanted: tuple[float, float]
) -> None:
    _, lost, gained, _ = table
    n = sum(table)
    for found, wanted in ((tango(lost, gained, n), tango_wanted), (newcombe_paired(*table), newcombe_wanted)):
        assert found is not None
        assert found.low < (gained - lost) / n < found.high
        assert found == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(
    ("table", "phi"),
    [
        ((9, 3, 4, 6), (54 - 12 - 11) / np.sqrt(12 * 10 * 13 * 9)),  # a positive one loses half an item
        ((4, 3, 2, 2), 0.0),  # which may be all of it
        ((2, 6, 5, 3), (6 - 30) / np.sqrt(8 * 8 * 7 * 9)),
        ((5, 3, 0, 0), 0.0),
    ],
)
def test_newcombes_method_10_step_by_step(table: tuple[int, int, int, int], phi: float) -> None:
    both, lost, gained, _ = table
    n = sum(table)
    ends = [proportion_confint(count, n, 0.1, "wilson") for count in (both + lost, both + gained)]
    first, second = (both + lost) / n, (both + gained) / n
    down, up = second - ends[1][0], ends[1][1] - second
    below, above = first - ends[0][0], ends[0][1] - first
    found = newcombe_paired(*table, level=0.9)
    low = second - first - np.sqrt(down**2 - 2 * phi * down * above + above**2)
    high = second - first + np.sqrt(up**2 - 2 * phi * up * below + below**2)
    assert found == pytest.approx((low, high), abs=1e-9)


def test_tango_holds_what_its_score_test_does_not_reject() -> None:
    """Inverted by hand on a grid, with the likelihood maximised numerically."""
    from scipy.optimize import minimize_scalar

    lost, gained, n = 9, 3, 60
    found = tango(lost, gained, n)
    assert found is not None
    for difference in (found.low, found.high):

        def negative(share: float, at: float = difference) -> float:
            up, same = share + at, 1 - 2 * share - at
            return -float(lost * np.log(share) + gained * np.log(up) + (n - lost - gained) * np.log(same))

        bounds = (max(1e-12, -difference + 1e-12), (1 - difference) / 2 - 1e-12)
        share = minimize_scalar(negative, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
        statistic = (gained - lost - n * difference) ** 2 / (n * (2 * share + difference - difference**2))
        assert statistic == pytest.approx(stats.norm.ppf(0.975) ** 2, rel=1e-5)


def test_unpaired_reference_is_wider_than_a_paired_interval() -> None:
    low, high = confint_proportions_2indep(40, 100, 60, 100, method="newcomb")
    paired = newcombe_paired(38, 22, 2, 38)
    assert paired is not None
    assert paired.high - paired.low < high - low
