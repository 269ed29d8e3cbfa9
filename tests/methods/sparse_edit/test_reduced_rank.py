"""The closed form of sparse weight editing against the literal algorithm, other closed forms and brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.methods.sparse_edit.reduced_rank import Anchored, LowRank, Metric, Penalty, RankPath, from_moments
from polysafe.probe.moments import LayerMoments
from tests.methods.sparse_edit.problem import (
    F64,
    N_LOW,
    N_SAFE,
    RANK,
    SOFT,
    D,
    M,
    Problem,
    edit,
    literal,
    make,
    objective,
    q_and_b,
    relative,
)


def test_no_gap_no_edit() -> None:
    p = make()
    p = replace(p, pivot=p.low.clone())
    path = Anchored(p.low, p.safe, SOFT).solve(p.gap)
    assert path.squared_gap == 0
    assert path.numerical_rank == 0
    assert path.truncate(RANK).dense.count_nonzero() == 0
    # a target behind the nonlinearity has a gap even between equal prompts
    after = torch.nn.functional.silu(p.pivot @ p.units) - p.low @ p.units
    assert Anchored(p.low, p.safe, SOFT).solve(after).truncate(RANK).dense.norm() > 0.1


@pytest.mark.parametrize("rank", [1, RANK, M, None])
@pytest.mark.parametrize("shape", [(N_LOW, N_SAFE), (30, 40), (200, 300)], ids=["equal", "few", "many"])
def test_all_routes_agree(rank: int | None, shape: tuple[int, int]) -> None:
    p = make(1, n_low=shape[0], n_safe=shape[1])
    expected = literal(p, SOFT, rank or M)
    paired, safe = LayerMoments.empty(D, paired=True), LayerMoments.empty(D)
    paired.update(p.low, p.pivot)
    safe.update(p.safe)
    routes = {
        "dense": Anchored(p.low, p.safe, SOFT, form="dense").solve(p.gap),
        "kernel": Anchored(p.low, p.safe, SOFT, form="kernel").solve(p.gap),
        "moments": from_moments(paired, safe, SOFT, p.units),
    }
    for path in routes.values():
        found = path.truncate(rank)
        assert relative(found.dense, expected) < 1e-11
        assert found.rank == min(rank or M, M)
        assert int(torch.linalg.matrix_rank(found.dense)) <= (rank or M)


def test_the_smaller_system_is_solved() -> None:
    few, many = make(n_low=10, n_safe=20), make(n_low=50, n_safe=60)
    assert Anchored(few.low, few.safe, SOFT).form == "kernel"
    assert Anchored(many.low, many.safe, SOFT).form == "dense"
    assert Anchored(many.low, many.safe, Penalty(utility="none")).form == "kernel"
    assert Anchored(few.low, few.safe, Penalty(utility="hard", null_threshold=1e-9)).form == "dense"


@pytest.mark.fault(18, "ill-conditioned moments")
def test_routes_have_equal_cost_where_the_system_is_badly_conditioned() -> None:
    """Language models have a few directions hundreds of times larger than the rest."""
    p = make(2)
    stretch = torch.ones(D, dtype=F64)
    stretch[:3] = 300.0
    p = replace(p, low=p.low * stretch, pivot=p.pivot * stretch, safe=p.safe * stretch)
    penalty = Penalty(ridge=1e-6)
    costs = [objective(p, edit(p, penalty, RANK, form), penalty) for form in ("dense", "kernel")]
    expected = objective(p, literal(p, penalty, RANK), penalty)
    assert costs == pytest.approx([expected, expected], rel=1e-12)


@given(st.integers(0, 2**16), st.integers(2, 30), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_the_path_foretells_the_cost_of_every_rank(seed: int, n_low: int, n_safe: int, d: int, m: int) -> None:
    p = make(seed, d=d, m=m, n_low=n_low, n_safe=n_safe)
    path = Anchored(p.low, p.safe, SOFT).solve(p.gap)
    costs = [path.objective(rank) for rank in range(m + 1)]
    assert costs[0] == pytest.approx(objective(p, torch.zeros(d, m, dtype=F64), SOFT), rel=1e-11)
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(costs))
    for rank in {1, m}:
        assert objective(p, path.truncate(rank).dense, SOFT) == pytest.approx(costs[rank], rel=1e-9, abs=1e-12)


def test_the_cost_of_every_rank_to_eleven_digits() -> None:
    p = make(3)
    for form in ("dense", "kernel"):
        path = Anchored(p.low, p.safe, SOFT, form=form).solve(p.gap)
        for rank in range(M + 1):
            cost = objective(p, path.truncate(rank).dense, SOFT)
            assert path.objective(rank) == pytest.approx(cost, rel=1e-11)


def test_edits_of_lower_rank_are_projections_of_those_of_higher_rank() -> None:
    p = make(4)
    path = Anchored(p.low, p.safe, SOFT).solve(p.gap)
    small, large = path.truncate(RANK), path.truncate(RANK + 7)
    assert relative(large.dense @ small.b @ small.b.mT, small.dense) < 1e-12
    assert torch.equal(large.a[:, :RANK], small.a) or relative(large.a[:, :RANK], small.a) < 1e-13


def test_nothing_found_by_alternating_least_squares_is_better() -> None:
    p = make(5)
    best = Anchored(p.low, p.safe, SOFT).solve(p.gap).objective(RANK)
    q, b = q_and_b(p, SOFT)
    lower = torch.linalg.cholesky(q)
    generator = torch.Generator().manual_seed(0)
    costs = []
    for _ in range(20):
        right = torch.randn(M, RANK, generator=generator, dtype=F64)
        for _ in range(300):
            left = torch.cholesky_solve(b @ right @ torch.linalg.inv(right.mT @ right), lower)
            right = b.mT @ left @ torch.linalg.inv(left.mT @ q @ left)
        costs.append(objective(p, left @ right.mT, SOFT))
    assert min(costs) >= best - 1e-9 * best
    assert min(costs) == pytest.approx(best, rel=1e-6)


def test_truncating_without_whitening_is_worse() -> None:
    p = make(6)
    full = edit(p, SOFT)
    left, values, right = torch.linalg.svd(full, full_matrices=False)
    plain = (left[:, :RANK] * values[:RANK]) @ right[:RANK]
    assert objective(p, edit(p, SOFT, RANK), SOFT) < 0.99 * objective(p, plain, SOFT)


@pytest.mark.parametrize("form", ["dense", "kernel"])
def test_the_edit_follows_its_problem(form: str) -> None:
    p = make(7)
    solver = Anchored(p.low, p.safe, SOFT, form=form)  # type: ignore[arg-type]
    once = solver.solve(p.gap).truncate(RANK).dense
    assert relative(solver.solve(2 * p.gap).truncate(RANK).dense, 2 * once) < 1e-14
    draw = torch.Generator().manual_seed(7)
    rows, columns = (torch.randperm(count, generator=draw) for count in (N_LOW, M))
    shuffled = Problem(p.low[rows], p.pivot[rows], p.safe, p.units[:, columns])
    assert relative(edit(shuffled, SOFT, RANK, form), once[:, columns]) < 1e-13
    turn = torch.linalg.qr(torch.randn(D, D, dtype=F64, generator=draw)).Q
    turned = Problem(p.low @ turn, p.pivot @ turn, p.safe @ turn, turn.mT @ p.units)
    assert relative(edit(turned, SOFT, RANK, form), turn.mT @ once) < 1e-12


def test_slipped_rows_cost() -> None:
    p = make(24)
    slipped = replace(p, pivot=p.pivot.roll(1, 0))
    assert objective(p, edit(slipped, SOFT, RANK), SOFT) > 1.5 * objective(p, edit(p, SOFT, RANK), SOFT)


def test_a_rank_beyond_the_numerical_rank_gives_the_ridge_solution() -> None:
    p = make(25, n_low=10)
    path = Anchored(p.low, p.safe, SOFT).solve(p.gap)
    q, b = q_and_b(p, SOFT)
    assert path.numerical_rank == 10
    assert path.truncate(10_000).rank == 10
    assert relative(path.truncate(10_000).dense, torch.linalg.solve(q, b)) < 1e-11


def test_ties_are_equally_good() -> None:
    low = torch.eye(8, dtype=F64)
    gap = torch.linalg.qr(torch.randn(8, 8, dtype=F64, generator=torch.Generator().manual_seed(1))).Q
    path = Anchored(low, None, Penalty(ridge=1e-2)).solve(gap)
    assert float(path.spectrum[0] - path.spectrum[-1]) < 1e-12
    p = Problem(low, low, torch.zeros(1, 8, dtype=F64), low)
    for rank in range(9):
        cost = objective(p, path.truncate(rank).dense, Penalty(ridge=1e-2), gap)
        assert cost == pytest.approx(path.objective(rank), rel=1e-11)
        assert cost == pytest.approx(path.squared_gap - rank * float(path.spectrum[0]), rel=1e-9)


@pytest.mark.fault(18, "fewer rows than dimensions")
def test_few_anchors_without_a_ridge_explode() -> None:
    """Anchors that hardly differ in some directions, with targets that do."""
    p = make(26, n_low=20, n_safe=30)
    narrow = torch.logspace(0, -5, D, dtype=F64)
    gap = torch.randn(20, M, dtype=F64, generator=torch.Generator().manual_seed(0))
    solvers = [Anchored(p.low * narrow, p.safe * narrow, Penalty(ridge=ridge)) for ridge in (1e-2, 1e-12)]
    sizes = [float(solver.solve(gap).truncate().dense.norm()) for solver in solvers]
    assert sizes[1] > 50 * sizes[0]


def test_singular_values_far_below_the_largest_are_kept() -> None:
    """Through the eigenvalues of BᵀM they would drown in rounding."""
    scale = torch.logspace(0, -11, 12, dtype=F64)
    path = RankPath(torch.diag(scale), lambda v: torch.diag(scale) @ v, 1.0)
    assert path.numerical_rank == 12
    assert torch.allclose(path.spectrum.sqrt(), scale, rtol=1e-10)


def test_a_factor_serves_all_projections() -> None:
    p = make(27)
    metric = Metric(p.low.mT @ p.low / N_LOW, p.safe.mT @ p.safe / N_SAFE, SOFT)
    for units in (p.units, p.units.flip(1) ** 2):
        gap = (p.pivot - p.low) @ units
        path = metric.solve(p.low.mT @ gap / N_LOW, float(gap.square().sum()) / N_LOW)
        found: LowRank = path.truncate(RANK)
        assert relative(found.dense, edit(replace(p, units=units), SOFT, RANK)) < 1e-12
