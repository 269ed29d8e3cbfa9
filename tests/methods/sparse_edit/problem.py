"""A layer as arrays, its cost from the definition, and the algorithm as it is printed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from polysafe.methods.sparse_edit.reduced_rank import Anchored, Penalty

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
