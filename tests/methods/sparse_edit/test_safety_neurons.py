"""Which units are chosen: constructed fixtures, counts by hand, and properties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.methods.sparse_edit.safety_neurons import (
    Contrast,
    Criterion,
    capped,
    jaccard,
    overlap,
    probe_units,
    random_units,
)
from polysafe.probe.moments import MeanVariance

UNITS, PROMPTS = 40, 50


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def contrast(harmful: torch.Tensor, harmless: torch.Tensor) -> Contrast:
    return Contrast.of(MeanVariance.of(harmful), MeanVariance.of(harmless))


def constructed() -> tuple[torch.Tensor, torch.Tensor]:
    """Unit 1: large gap, larger variance. Unit 2: tiny gap, tinier variance. Unit 3: large gap downwards."""
    harmful, harmless = normal(0, PROMPTS, UNITS), normal(1, PROMPTS, UNITS)
    for values in (harmful, harmless):
        values[:, 1] *= 20
        values[:, 1] -= values[:, 1].mean()
        values[:, 2] *= 0.001
        values[:, 2] -= values[:, 2].mean()
    harmful[:, 1] += 5.0
    harmful[:, 2] += 0.01
    harmful[:, 3] -= 5.0
    return harmful, harmless


def test_either_score_suffices_and_signs_count() -> None:
    found = contrast(*constructed())
    assert Criterion().choose(found).tolist() == [1, 2]
    assert float(found.z[1]) > 2
    assert float(found.d[1]) < 1
    assert float(found.z[2]) < 2
    assert float(found.d[2]) > 1
    assert Criterion(combine="intersection").choose(found).tolist() == []
    assert Criterion(absolute=True).choose(found).tolist() == [1, 2, 3]
    assert Criterion(absolute=True, combine="intersection").choose(found).tolist() == [3]


def test_scores_by_hand() -> None:
    """z divides by the population deviation over units, d by sample deviations over prompts."""
    harmful = torch.tensor([[1.0, 4.0], [3.0, 4.0], [5.0, 7.0]])
    harmless = torch.tensor([[0.0, 5.0], [2.0, 7.0]])
    found = contrast(harmful, harmless)
    # gaps 3 − 1 = 2 and 5 − 6 = −1: mean ½, population deviation 1½
    assert found.z.tolist() == pytest.approx([1.0, -1.0])
    # sample variances 4 and 2 with 2 and 1 degrees of freedom; 3 and 2
    assert found.d.tolist() == pytest.approx([2 / math.sqrt(10 / 3), -1 / math.sqrt(8 / 3)])


def test_a_constant_unit_is_never_chosen() -> None:
    harmful, harmless = constructed()
    harmful[:, 7], harmless[:, 7] = 100.0, 0.0
    harmful[:, 8], harmless[:, 8] = 1.0, 1.0
    found = contrast(harmful, harmless)
    assert found.d[7] == found.d[8] == 0
    assert not {7, 8} & set(Criterion(tau_mag=-9, tau_stat=-9).choose(found).tolist())
    still = torch.ones(3, 4)
    assert Criterion().choose(contrast(still, still)).numel() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_must_be_finite(value: float) -> None:
    harmful, harmless = constructed()
    harmful[4, 9] = value
    with pytest.raises(DataError, match="unit 9 are not finite"):
        contrast(harmful, harmless)
    with pytest.raises(DataError, match="unit 9 are not finite"):
        probe_units(harmful, harmless)


def test_one_prompt_is_too_few() -> None:
    harmful, harmless = constructed()
    with pytest.raises(DataError, match="too few"):
        contrast(harmful[:1], harmless)


@given(st.integers(0, 999), st.floats(0.01, 1.0), st.floats(-1, 2), st.floats(-1, 2), st.booleans())
def test_caps_and_thresholds_bound_the_choice(seed: int, cap: float, tau: float, more: float, absolute: bool) -> None:
    found = contrast(normal(seed, 9, UNITS), normal(seed + 1, 8, UNITS))
    loose = Criterion(tau, tau, absolute=absolute).choose(found)
    strict = Criterion(tau + abs(more), tau + abs(more), absolute=absolute).choose(found)
    both = Criterion(tau, tau, "intersection", absolute=absolute).choose(found)
    assert set(strict.tolist()) <= set(loose.tolist())
    assert set(both.tolist()) <= set(loose.tolist())
    few = Criterion(tau, tau, absolute=absolute, cap=cap).choose(found)
    assert len(few) == min(len(loose), max(1, int(cap * UNITS)))
    score = found.d.abs() if absolute else found.d
    left = sorted(set(loose.tolist()) - set(few.tolist()))
    assert not left or not len(few) or float(score[few].min()) >= float(score[left].max())
    for chosen in (loose, few):
        assert chosen.dtype == torch.int64
        assert bool((chosen.diff() > 0).all())


def test_the_cap_takes_the_best_and_keeps_their_order() -> None:
    score = torch.tensor([5.0, 1.0, 9.0, 7.0])
    assert capped(torch.tensor([0, 1, 2, 3]), score, 0.5).tolist() == [2, 3]
    assert capped(torch.tensor([0, 1]), score, 0.01).tolist() == [0]
    assert capped(torch.tensor([1, 3]), score, None).tolist() == [1, 3]


def test_the_probe_finds_the_units_that_tell() -> None:
    harmful, harmless = normal(2, 200, 100), normal(3, 200, 100)
    harmful[:, [11, 60]] += 2.0
    harmful[:, 33] -= 2.0
    assert probe_units(harmful, harmless).tolist() == [11, 60]
    assert probe_units(harmful, harmless, cap=0.01).numel() == 1
    assert torch.equal(probe_units(harmful, harmless), probe_units(harmful, harmless))


def test_random_units_are_seeded() -> None:
    drawn = random_units(UNITS, 12, seed=3)
    assert len(set(drawn.tolist())) == 12
    assert drawn.tolist() == sorted(drawn.tolist())
    assert torch.equal(drawn, random_units(UNITS, 12, seed=3))
    assert not torch.equal(drawn, random_units(UNITS, 12, seed=4))


def test_overlap_counts_units_per_projection() -> None:
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert jaccard(set(), set()) == 1.0
    assert jaccard({1}, set()) == 0.0
    english = [torch.tensor([1, 2]), torch.tensor([5])]
    other = [torch.tensor([5]), torch.tensor([5, 1])]
    found = overlap({"en": english, "sw": other})
    assert found["en"] == {"en": 1.0, "sw": 0.2}
    assert found["sw"]["en"] == 0.2
