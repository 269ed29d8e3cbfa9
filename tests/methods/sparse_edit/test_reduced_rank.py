"""The closed form of sparse weight editing against the literal algorithm, other closed forms and brute force."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import EditError
from polysafe.methods.sparse_edit.reduced_rank import Anchored, LowRank, Metric, Penalty, RankPath, from_moments
from polysafe.probe.moments import LayerMoments

D, M, N_LOW, N_SAFE, RANK = 96, 24, 40, 60, 4
F64 = torch.float64


@dataclass(frozen=True)
class Problem:
    """Rows of a layer: harmful inputs, their pivot parallels, harmless inputs, weights of the chosen units."""

    low: torch.Tensor
    pivot: torch.Tensor
    safe: torch.Tensor
    units: torch.Tensor

    @property
    def gap(self) -> torch.Tensor:
        return (self.pivot - self.low) @ self.units


def make(seed: int = 0, *, d: int = D, m: int = M, n_low: int = N_LOW, n_safe: int = N_SAFE) -> Problem:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=F64)

    spectrum = torch.logspace(0, -1, d, dtype=F64)
    low = normal(n_low, d) * spectrum
    return Problem(low, low + 0.5 * normal(n_low, d) * spectrum, normal(n_safe, d) * spectrum, normal(d, m))


def objective(p: Problem, delta: torch.Tensor, penalty: Penalty, gap: torch.Tensor | None = None) -> float:
    """J, from its definition."""
    gap = p.gap if gap is None else gap
    n, d = p.low.shape
    ridge = penalty.ridge * float(p.low.square().sum()) / (n * d)
    drift = penalty.utility_weight * float((p.safe @ delta).square().sum()) / len(p.safe)
    return float((p.low @ delta - gap).square().sum()) / n + drift + ridge * float(delta.square().sum())


def q_and_b(p: Problem, penalty: Penalty) -> tuple[torch.Tensor, torch.Tensor]:
    n, d = p.low.shape
    second = p.low.mT @ p.low / n
    q = second + penalty.utility_weight * p.safe.mT @ p.safe / len(p.safe)
    return q + penalty.ridge * second.trace() / d * torch.eye(d, dtype=F64), p.low.mT @ p.gap / n


def literal(p: Problem, penalty: Penalty, rank: int) -> torch.Tensor:
    """The algorithm as it is printed: ridge solution, whitening, tall decomposition, un-whitening."""
    q, b = q_and_b(p, penalty)
    upper = torch.linalg.cholesky(q).mT
    ridge_solution = torch.cholesky_solve(b, upper.mT)
    left, values, right = torch.linalg.svd(upper @ ridge_solution, full_matrices=False)
    cut: torch.Tensor = torch.linalg.solve_triangular(upper, left[:, :rank] * values[:rank], upper=True) @ right[:rank]
    return cut


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def edit(p: Problem, penalty: Penalty, rank: int | None = None, form: str | None = None) -> torch.Tensor:
    return Anchored(p.low, p.safe, penalty, form=form).solve(p.gap).truncate(rank).dense  # type: ignore[arg-type]


SOFT = Penalty()


# 1


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


# 2, 4


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


# 3, 6


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


# 5


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


# 7


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


# 8


def test_a_large_ridge_makes_the_edit_vanish() -> None:
    p = make(8)
    sizes = [float(edit(p, Penalty(ridge=ridge)).norm()) for ridge in (1e4, 1e5, 1e6)]
    assert sizes[0] / sizes[1] == pytest.approx(10, rel=1e-2)
    assert sizes[1] / sizes[2] == pytest.approx(10, rel=1e-3)


def test_soft_tends_to_hard_as_the_weight_grows() -> None:
    p = make(9)
    hard = edit(p, Penalty(utility="hard", null_threshold=1e-10), RANK)
    gaps = [relative(edit(p, Penalty(utility_weight=w), RANK), hard) for w in (1e2, 1e4, 1e6)]
    assert gaps[1] == pytest.approx(gaps[0] / 100, rel=0.1)
    assert gaps[2] == pytest.approx(gaps[1] / 100, rel=0.1)
    # then rounding takes over: a huge weight is no way to a hard constraint
    assert relative(edit(p, Penalty(utility_weight=1e10), RANK), hard) > 10 * gaps[2]
    with pytest.raises(EditError, match="singular"):
        edit(p, Penalty(utility_weight=1e16), RANK)


# 9


def test_hard_mode_leaves_harmless_inputs_alone() -> None:
    p = make(10)
    hard = edit(p, Penalty(utility="hard", null_threshold=1e-10), RANK)
    assert float((p.safe @ hard).norm()) <= 1e-12 * float(p.safe.norm() * hard.norm())
    assert float((p.safe @ hard).norm()) <= 1e-10 * float((p.safe @ p.units).norm())
    soft = edit(p, Penalty(utility_weight=1e4), RANK)
    assert float((p.safe @ soft).norm()) <= 1e-4 * float(p.safe.norm() * soft.norm())


def test_restricting_whitening_and_truncating_in_this_order_is_best() -> None:
    p, bare = make(11), Penalty(utility_weight=0.0)
    hard = replace(bare, utility="hard", null_threshold=1e-10)
    projector = torch.eye(D, dtype=F64) - torch.linalg.pinv(p.safe) @ p.safe
    q, _ = q_and_b(p, bare)
    upper = torch.linalg.cholesky(q).mT
    free = projector @ edit(p, bare)

    def truncated(matrix: torch.Tensor) -> torch.Tensor:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        cut: torch.Tensor = (left[:, :RANK] * values[:RANK]) @ right[:RANK]
        return cut

    ours = edit(p, hard, RANK)
    others = {
        "whiten, truncate, project": projector @ edit(p, bare, RANK),
        "project, truncate plainly": truncated(free),
        "project, truncate whitened": torch.linalg.solve_triangular(upper, truncated(upper @ free), upper=True),
    }
    cost = objective(p, ours, bare)
    for other in others.values():
        assert cost < 0.95 * objective(p, other, bare)
    assert int(torch.linalg.matrix_rank(ours, rtol=1e-9)) == RANK


def test_the_null_space_of_the_weights_protects_nothing() -> None:
    """Constraining ΔW on {v : W v = 0}, as the method is sometimes described, leaves harmless outputs to move."""
    p = make(12, d=M * 4)
    free = edit(p, Penalty(utility_weight=0.0))
    inside = p.units @ torch.linalg.lstsq(p.units, free).solution  # the nearest ΔW with W v = 0 ⇒ ΔW v = 0
    drift = [float((p.safe @ delta).norm() / (p.safe @ p.units).norm()) for delta in (inside, edit(p, SOFT))]
    assert drift[0] > 2 * drift[1] > 0.1
    kernel = torch.linalg.svd(p.units.mT).Vh[M:]
    assert float((kernel @ p.units).norm()) < 1e-10


# 10


def test_few_independent_anchors_are_met_exactly() -> None:
    p = make(13)
    for form, ridge, tolerance in (("dense", 1e-10, 1e-7), ("kernel", 1e-13, 1e-9)):
        landed = p.low @ (p.units + edit(p, Penalty(utility="none", ridge=ridge), form=form))
        assert relative(landed, p.pivot @ p.units) < tolerance
    weights = (0.0, 1e-2, 1e-1, 1.0, 10.0)
    residuals = [float((p.low @ edit(p, Penalty(utility_weight=w)) - p.gap).norm()) for w in weights]
    assert residuals == sorted(residuals)


# 11


def test_without_truncation_it_is_memit() -> None:
    """Meng et al., ICLR 2023: ΔWᵀ = DᵀX(γX_sᵀX_s + XᵀX + λI)⁻¹ with keys X, residuals D and weight γ of the moment."""
    p = make(14)
    gamma, ridge = SOFT.utility_weight * N_LOW / N_SAFE, SOFT.ridge * float(p.low.square().sum()) / D
    system = gamma * p.safe.mT @ p.safe + p.low.mT @ p.low + ridge * torch.eye(D, dtype=F64)
    memit = p.gap.mT @ p.low @ torch.linalg.inv(system)
    assert relative(edit(p, SOFT).mT, memit) < 1e-11


def test_hard_mode_without_truncation_is_alphaedit() -> None:
    """Fang et al., ICLR 2025: ΔW = (PKKᵀ + λI)⁻¹PKRᵀ with keys K = Xᵀ, P projecting on the harmless null space."""
    p = make(15)
    projector = torch.eye(D, dtype=F64) - torch.linalg.pinv(p.safe) @ p.safe
    ridge = SOFT.ridge * float(p.low.square().sum()) / D
    system = projector @ p.low.mT @ p.low + ridge * torch.eye(D, dtype=F64)
    alphaedit = torch.linalg.solve(system, projector @ p.low.mT @ p.gap)
    path = Anchored(p.low, p.safe, Penalty(utility="hard", null_threshold=1e-10)).solve(p.gap)
    assert relative(path.truncate().dense, alphaedit) < 1e-11
    low_rank = path.truncate(RANK)
    assert relative(alphaedit @ low_rank.b @ low_rank.b.mT, low_rank.dense) < 1e-10


# 12, 15


@given(st.lists(st.integers(1, N_LOW - 1), max_size=4, unique=True).map(sorted))
def test_moments_of_chunks_give_the_same_edit(cuts: list[int]) -> None:
    p = make(16)
    edges = [0, *cuts, N_LOW]
    shards = []
    for start, stop in itertools.pairwise(edges):
        shard = LayerMoments.empty(D, paired=True)
        shard.update(p.low[start:stop], p.pivot[start:stop])
        shards.append(shard)
    total = LayerMoments.empty(D, paired=True)
    for shard in reversed(shards):
        total.merge(shard)
    safe = LayerMoments.empty(D)
    safe.update(p.safe)
    for gain in (1.0, 2.5):
        gap = (gain * p.pivot - p.low) @ p.units
        expected = Anchored(p.low, p.safe, SOFT).solve(gap)
        found = from_moments(total, safe, SOFT, p.units, gain=gain)
        assert relative(found.truncate(RANK).dense, expected.truncate(RANK).dense) < 1e-10
        assert found.objective(RANK) == pytest.approx(expected.objective(RANK), rel=1e-10)


def test_moments_without_pairs_are_refused() -> None:
    alone = LayerMoments.empty(D)
    alone.update(make().low)
    with pytest.raises(EditError, match="parallels"):
        from_moments(alone, None, SOFT, make().units)


def test_weighted_languages_are_weighted_moments() -> None:
    p, half = make(17), N_LOW // 2
    weights = torch.cat([torch.full((half,), 3.0), torch.full((half,), 1.0)])
    thrice = torch.cat([torch.arange(half).repeat(3), torch.arange(half, N_LOW)])
    weighted = Anchored(p.low, p.safe, SOFT, weights=weights).solve(p.gap).truncate(RANK).dense
    repeated = edit(Problem(p.low[thrice], p.pivot[thrice], p.safe, p.units), SOFT, RANK)
    assert relative(weighted, repeated) < 1e-11
    flipped = Anchored(p.low.flip(0), p.safe, SOFT, weights=weights.flip(0)).solve(p.gap.flip(0))
    assert relative(flipped.truncate(RANK).dense, weighted) < 1e-12


def test_heavy_pivot_rows_pin_the_pivot() -> None:
    p = make(18)
    moved = []
    for weight in (1e-6, 1.0, 1e6):
        weights = torch.cat([torch.ones(N_LOW), torch.full((N_LOW,), weight)])
        rows, gap = torch.cat([p.low, p.pivot]), torch.cat([p.gap, torch.zeros_like(p.gap)])
        delta = Anchored(rows, p.safe, SOFT, weights=weights).solve(gap).truncate().dense
        moved.append(float((p.pivot @ delta).norm() / (p.pivot @ p.units).norm()))
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-3


# 13


def test_half_precision_inputs_are_summed_in_float64() -> None:
    p = make(19)
    rounded = Problem(*(part.to(torch.float32) for part in (p.low, p.pivot, p.safe, p.units)))
    delta = edit(rounded, SOFT, RANK)
    assert delta.dtype == F64
    assert relative(delta, edit(p, SOFT, RANK)) < 1e-5


@pytest.mark.parametrize("form", ["dense", "kernel"])
def test_a_singular_system_is_refused(form: str) -> None:
    p = make(20, n_low=20, n_safe=30)
    with pytest.raises(EditError, match="singular"):
        edit(p, Penalty(ridge=0.0), form=form)
    enough = make(20, n_low=60, n_safe=60)
    assert relative(edit(enough, Penalty(ridge=0.0)), literal(enough, Penalty(ridge=0.0), M)) < 1e-9


def test_hard_mode_needs_room() -> None:
    p = make(21, n_safe=400)
    with pytest.raises(EditError, match="every direction"):
        edit(p, Penalty(utility="hard", null_threshold=1e-12))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_anchors_must_be_finite(value: float) -> None:
    p = make(22)
    for rows in (p.low, p.safe):
        rows[3, 5] = value
        with pytest.raises(EditError, match="row 3 are not finite"):
            Anchored(p.low, p.safe, SOFT)
        rows[3, 5] = 0.0


def test_one_anchor_is_too_few() -> None:
    p = make()
    with pytest.raises(EditError, match="too few"):
        Anchored(p.low[:1], p.safe, SOFT)


# 14


@pytest.mark.parametrize("form", ["dense", "kernel"])
def test_scale_and_number_of_anchors_do_not_matter(form: str) -> None:
    p = make(23)
    doubled = Problem(p.low.repeat(2, 1), p.pivot.repeat(2, 1), p.safe.repeat(2, 1), p.units)
    assert relative(edit(doubled, SOFT, RANK, form), edit(p, SOFT, RANK, form)) < 1e-11
    scaled = Problem(8 * p.low, 8 * p.pivot, 8 * p.safe, p.units / 8)
    assert relative(edit(scaled, SOFT, RANK, form), edit(p, SOFT, RANK, form) / 8) < 1e-12


# 16


def test_slipped_rows_cost() -> None:
    p = make(24)
    slipped = replace(p, pivot=p.pivot.roll(1, 0))
    assert objective(p, edit(slipped, SOFT, RANK), SOFT) > 1.5 * objective(p, edit(p, SOFT, RANK), SOFT)


# 17


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


# 26, on arrays


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
