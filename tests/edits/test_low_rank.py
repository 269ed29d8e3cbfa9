from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.edits.low_rank import LowRank, best_approximation, distance


def product(seed: int, rows: int, rank: int, columns: int) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(rows, rank, generator=generator, dtype=torch.float64)
    return LowRank(left, torch.randn(rank, columns, generator=generator, dtype=torch.float64))


def dense(matrix: LowRank) -> torch.Tensor:
    return matrix.left @ matrix.right


def spectrum(matrix: torch.Tensor) -> torch.Tensor:
    values: torch.Tensor = torch.linalg.svdvals(matrix.to(torch.float64))
    return values


@given(seed=st.integers(0, 999), rows=st.integers(1, 20), columns=st.integers(1, 20), rank=st.integers(1, 20))
def test_error_of_the_best_approximation_is_the_tail_of_the_spectrum(
    seed: int, rows: int, columns: int, rank: int
) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    found, needed = best_approximation(matrix, rank)
    values = spectrum(matrix)
    assert found.rank == min(rank, needed)
    assert distance(matrix, found) == pytest.approx(values[rank:].norm().item(), abs=2e-6 * values.norm().item())


@given(seed=st.integers(0, 999), rank=st.integers(1, 6), flip=st.booleans())
def test_rank_of_a_product_is_found(seed: int, rank: int, flip: bool) -> None:
    matrix = dense(product(seed, 12, rank, 30)).to(torch.float32)
    matrix = matrix.mT if flip else matrix
    found, needed = best_approximation(matrix, 10)
    assert found.rank == needed == rank
    assert distance(matrix, found) <= 2e-6 * matrix.norm().item()


def test_rows_and_columns_of_zeros_stay_zeros() -> None:
    matrix = torch.zeros(9, 12)
    matrix[2:5, 4:8] = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for found in (best_approximation(matrix, 2)[0], best_approximation(matrix, 9)[0].truncated(2)):
        assert found.rank == 2
        assert set((found.left != 0).any(1).nonzero().flatten().tolist()) == {2, 3, 4}
        assert set((found.right != 0).any(0).nonzero().flatten().tolist()) == {4, 5, 6, 7}


def test_rows_of_ones_are_no_rows_of_zeros() -> None:
    ones = torch.ones(3, 4, dtype=torch.float64)
    torch.testing.assert_close(dense(LowRank(ones[:, :1], ones[:1]).truncated(1)), ones)


def test_distance_of_a_matrix_of_several_blocks_of_rows() -> None:
    matrix, far = product(0, 2500, 1, 3), product(1, 2500, 2, 3)
    assert distance(dense(matrix), far) == pytest.approx((dense(matrix) - dense(far)).norm().item())


def test_the_zero_matrix_has_rank_zero() -> None:
    found, needed = best_approximation(torch.zeros(3, 4), 2)
    assert (found.rank, needed, found.shape, found.norm()) == (0, 0, (3, 4), 0.0)
    assert LowRank.zero(3, 4).truncated(2).rank == 0


@given(seed=st.integers(0, 999), rank=st.integers(1, 8))
def test_truncation_of_a_product_is_that_of_the_dense_matrix(seed: int, rank: int) -> None:
    matrix = product(seed, 14, 6, 11)
    values = spectrum(dense(matrix))
    missed = (matrix + matrix.truncated(rank).times(-1.0)).norm()
    assert missed == pytest.approx(values[rank:].norm().item(), abs=1e-9 * values.norm().item())


@given(seed=st.integers(0, 999))
def test_algebra_is_that_of_dense_matrices(seed: int) -> None:
    first, second = product(seed, 7, 2, 10), product(seed + 1, 7, 3, 10)
    mask = torch.zeros(10, dtype=torch.float64)
    mask[1:3] = mask[6:10] = 1
    ranges = ((1, 3), (6, 10))
    torch.testing.assert_close(dense(first + second.times(-2.0)), dense(first) - 2 * dense(second))
    assert torch.equal(first.on_columns(ranges).right, first.right * mask)
    torch.testing.assert_close(
        dense(first.with_columns_times(3.0, ranges)), dense(first) * (1 + 2 * mask), rtol=1e-12, atol=1e-12
    )
    assert first.norm() == pytest.approx(dense(first).norm().item(), rel=1e-12)
    assert (first + first.times(0.0)).pruned().rank == 2
