from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import MismatchError
from polysafe.probe.moments import LayerMoments, MeanVariance, SecondMoment

Cuts = st.lists(st.integers(0, 40), max_size=6)


def _rows(seed: int, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([1.0, 300.0, 1e-3, 1.0, 0.0], dtype=torch.float64)
    level = torch.tensor([0.0, 1e3, 1.0, 1e6, 7.0], dtype=torch.float64)
    return torch.randn(40, width, generator=generator, dtype=torch.float64) * scale + level


def _chunks(rows: torch.Tensor, cuts: list[int]) -> list[torch.Tensor]:
    edges = [0, *sorted(cuts), len(rows)]
    return [rows[a:b] for a, b in pairwise(edges)]


def test_mean_and_both_variances_by_hand() -> None:
    got = MeanVariance.of(torch.tensor([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]))
    assert got.count == 3
    assert got.mean.tolist() == [3.0, 5.0]
    assert got.variance().tolist() == [7.0, 0.0]  # (4 + 1 + 9) / 2
    assert got.variance(correction=0).tolist() == pytest.approx([14 / 3, 0.0])


def test_the_variance_of_one_row_is_unknown() -> None:
    assert MeanVariance.of(torch.ones(1, 2)).variance().isnan().all()
    assert MeanVariance.of(torch.ones(1, 2)).variance(correction=0).tolist() == [0.0, 0.0]


@given(st.integers(0, 1000), Cuts)
def test_any_chunking_of_mean_and_variance_is_one_pass(seed: int, cuts: list[int]) -> None:
    rows = _rows(seed)
    got = MeanVariance.empty(5)
    for chunk in _chunks(rows, cuts):
        got.update(chunk)
    torch.testing.assert_close(got.mean, rows.mean(0), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(got.variance(), (rows - rows[0]).var(0), rtol=1e-9, atol=1e-13)


@given(st.integers(0, 1000), Cuts, st.booleans())
def test_shards_of_moments_merge_in_any_order(seed: int, cuts: list[int], backwards: bool) -> None:
    x, y = _rows(seed), _rows(seed + 1)
    parts = []
    for a, b in zip(_chunks(x, cuts), _chunks(y, cuts), strict=True):
        parts.append(LayerMoments.empty(5, paired=True))
        parts[-1].update(a, b)
    got = LayerMoments.empty(5, paired=True)
    for part in reversed(parts) if backwards else parts:
        got.merge(part)
    assert got.count == 40
    assert got.y is not None
    assert got.xy is not None
    assert got.yy is not None
    for found, expected in ((got.xx, x.T @ x), (got.xy, x.T @ y), (got.yy, y.T @ y)):
        torch.testing.assert_close(found.total, expected, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(got.y.mean, y.mean(0), rtol=1e-13, atol=1e-13)


def test_sums_are_wide_even_if_the_rows_are_not() -> None:
    rows = torch.full((3, 1), 1.0, dtype=torch.bfloat16)
    moment = SecondMoment.empty(1)
    for _ in range(200):  # bfloat16 cannot count beyond 256
        moment.update(rows)
    assert moment.total.item() == 600.0
    assert moment.total.dtype == torch.float64


def test_linear_units_from_moments_are_those_of_the_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator, dtype=torch.float64) + 3.0
    weight, bias = torch.randn(9, 6, generator=generator), torch.randn(9, generator=generator)
    moments = LayerMoments.empty(6)
    moments.update(x)
    got, expected = moments.units(weight, bias), MeanVariance.of(x @ weight.double().T + bias.double())
    assert got.count == 50
    torch.testing.assert_close(got.mean, expected.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got.variance(), expected.variance(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("paired", [False, True])
def test_moments_survive_storage(paired: bool) -> None:
    moments = LayerMoments.empty(5, paired=paired)
    moments.update(_rows(1), _rows(2) if paired else None)
    back = LayerMoments.from_tensors(moments.tensors())
    stored, again = moments.tensors(), back.tensors()
    assert stored.keys() == again.keys()
    assert all(torch.equal(stored[name], again[name]) for name in stored)
    back.update(_rows(3), _rows(4) if paired else None)
    assert back.count == 80


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"\[3\] and \[4\] units"):
        MeanVariance.empty(3).merge(MeanVariance.empty(4))
    with pytest.raises(MismatchError, match="columns"):
        SecondMoment.empty(3).merge(SecondMoment.empty(3, 4))
    with pytest.raises(MismatchError, match="2 rows cannot be paired with 3"):
        SecondMoment.empty(1).update(torch.ones(2, 1), torch.ones(3, 1))
    with pytest.raises(MismatchError, match="with pairs"):
        LayerMoments.empty(3).merge(LayerMoments.empty(3, paired=True))
    with pytest.raises(MismatchError, match="rows with pairs"):
        LayerMoments.empty(1, paired=True).update(torch.ones(2, 1))
