"""Harmless inputs: a cost of the edit or untouched, and the published edits that are special cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from polysafe.errors import EditError
from polysafe.methods.sparse_edit.reduced_rank import Anchored, Penalty
from tests.methods.sparse_edit.problem import (
    F64,
    N_LOW,
    N_SAFE,
    RANK,
    SOFT,
    D,
    M,
    edit,
    make,
    objective,
    q_and_b,
    relative,
)


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


@pytest.mark.fault(18, "held-out rows are left alone")
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


@pytest.mark.fault(18, "fewer rows than dimensions")
def test_few_independent_anchors_are_met_exactly() -> None:
    p = make(13)
    for form, ridge, tolerance in (("dense", 1e-10, 1e-7), ("kernel", 1e-13, 1e-9)):
        landed = p.low @ (p.units + edit(p, Penalty(utility="none", ridge=ridge), form=form))
        assert relative(landed, p.pivot @ p.units) < tolerance
    weights = (0.0, 1e-2, 1e-1, 1.0, 10.0)
    residuals = [float((p.low @ edit(p, Penalty(utility_weight=w)) - p.gap).norm()) for w in weights]
    assert residuals == sorted(residuals)


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


def test_hard_mode_needs_room() -> None:
    p = make(21, n_safe=400)
    with pytest.raises(EditError, match="every direction"):
        edit(p, Penalty(utility="hard", null_threshold=1e-12))
