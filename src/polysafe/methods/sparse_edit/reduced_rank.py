"""The closed form of sparse weight editing: regularised regression, truncated to a rank in the metric of the data.

Liang, Wang & Wang, *Multilingual Safety Alignment Via Sparse Weight Editing*, ICML 2026 (their Eq. 8 and Theorem 4.1).
Activations are rows, y = xW. For harmful inputs X [N, d] whose outputs on m units are to move by D [N, m], and
harmless inputs X_s [N_s, d] whose outputs are to stay, the edit Δ [d, m] minimises, over all matrices of rank ≤ r,

    J(Δ) = ‖XΔ − D‖² / N + γ̂ ‖X_sΔ‖² / N_s + λ̂ t ‖Δ‖²        t = tr(XᵀX) / (N d)

Dividing by the counts and by t makes γ̂ and λ̂ free of scale: doubling the anchors changes nothing. With
Q = XᵀX/N + γ̂ X_sᵀX_s/N_s + λ̂tI = RᵀR (Cholesky), B = XᵀD/N and Y = R⁻ᵀB, completing the square gives

    J(Δ) = ‖RΔ − Y‖² + ‖D‖²/N − ‖Y‖²

so that the best Δ is R⁻¹ times the best rank-r approximation of Y (Eckart, Young & Mirsky): Δ = R⁻¹Y V_rV_rᵀ, where V
holds the right singular vectors of Y, which are the eigenvectors of BᵀQ⁻¹B. This is reduced-rank regression (Izenman,
1975); one decomposition gives the edit, and J, of every rank. Q does not depend on the units, so that all projections
with one input share one Cholesky factor.

With fewer anchors than input dimensions the same edit is found without any d × d matrix. For the stacked and scaled
Z = [X; X_s] and D padded with zeros, Q⁻¹ZᵀD = Zᵀ(ZZᵀ + λI)⁻¹D (push-through identity).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from polysafe.errors import EditError
from polysafe.probe.moments import LayerMoments

Utility = Literal["soft", "hard", "none"]


@dataclass(frozen=True, slots=True)
class Penalty:
    """What keeps the edit small.

    Attributes:
        utility: How harmless inputs are kept in place: by a penalty on ‖X_sΔ‖² (`soft`, the paper), by allowing only
            directions in which they have no variation to speak of (`hard`, in the manner of AlphaEdit), or not at all.
        utility_weight: γ̂.
        ridge: λ̂.
        null_threshold: For `hard`: eigen-directions of X_sᵀX_s with less than this share of its largest eigenvalue
            count as its null space.
    """

    utility: Utility = "soft"
    utility_weight: float = 1.0
    ridge: float = 1e-2
    null_threshold: float = 1e-2


@dataclass(frozen=True, slots=True)
class LowRank:
    """An edit Δ = a·bᵀ.

    Attributes:
        a: Input side, [d, r] in float64.
        b: Unit side, [m, r] in float64, orthonormal columns.
    """

    a: torch.Tensor
    b: torch.Tensor

    @property
    def rank(self) -> int:
        """Number of terms."""
        return int(self.a.shape[1])

    @property
    def dense(self) -> torch.Tensor:
        """Δ, [d, m]."""
        return self.a @ self.b.mT

    def turned(self, seed: int) -> LowRank:
        """As large at every unit and of the same rank, along directions of the input that are drawn at random."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.a.shape, generator=generator, dtype=self.a.dtype)
        # a = QR: with another Q, aᵀa, and so the norm of every column of Δ, stays as it is.
        return LowRank(torch.linalg.qr(drawn).Q @ torch.linalg.qr(self.a).R, self.b)


class RankPath:
    """The edits of one projection for every rank.

    Args:
        whitened: Y, or any matrix with the same YᵀY, [k, m].
        lift: Maps V [m, r] to Q⁻¹B·V, [d, r].
        squared_gap: ‖D‖² / N.

    Attributes:
        spectrum: Squares of the singular values of Y, descending: what each further rank takes off J.
        squared_gap: ‖D‖² / N, which is J(0).
        numerical_rank: Number of singular values that are not rounding noise; no edit has a higher rank.
    """

    def __init__(
        self, whitened: torch.Tensor, lift: Callable[[torch.Tensor], torch.Tensor], squared_gap: float
    ) -> None:
        # A singular value decomposition of the small triangular factor: YᵀY would square the singular values, and with
        # them lose those below 1e-8 of the largest.
        values, rows = torch.linalg.svd(torch.linalg.qr(whitened, mode="r").R, full_matrices=False)[1:]
        noise = torch.finfo(torch.float64).eps * max(whitened.shape)
        largest = float(values[0]) if values.numel() else 0.0
        self.spectrum = values.square()
        self.squared_gap = squared_gap
        self.numerical_rank = int((values > noise * largest).sum())
        self._directions = rows.mT
        self._lift = lift

    def truncate(self, rank: int | None = None) -> LowRank:
        """The best edit of rank ≤ `rank`; None, or more than the numerical rank, gives the untruncated ridge solution.

        The solutions are nested: dropping terms of one gives the best of a lower rank.
        """
        kept = self.numerical_rank if rank is None else min(rank, self.numerical_rank)
        directions = self._directions[:, :kept]
        return LowRank(self._lift(directions), directions)

    def objective(self, rank: int | None = None) -> float:
        """J of the best edit of rank ≤ `rank`: ‖D‖²/N − Σ_{i≤r} σᵢ²."""
        return self.squared_gap - float(self.spectrum[:rank].sum())


class Metric:
    """Q of a layer, factored: gives the edits of any projection that reads the layer's input.

    Args:
        low: Second moment of the harmful inputs, XᵀX/N, [d, d].
        benign: Second moment of the harmless inputs, X_sᵀX_s/N_s, [d, d]; None without any.
        penalty: What keeps the edit small.

    Attributes:
        ridge: λ = λ̂t as it was used.
        free_directions: Dimensions that the edit may use: d, fewer with `hard`.

    Raises:
        EditError: Q is singular, or `hard` leaves no direction.
    """

    def __init__(self, low: torch.Tensor, benign: torch.Tensor | None, penalty: Penalty) -> None:
        low = low.to(torch.float64)
        self.ridge = penalty.ridge * _typical(low.diagonal())
        self._basis = None
        q = low
        if benign is not None and penalty.utility != "none":
            q = torch.add(low, benign.to(torch.float64), alpha=penalty.utility_weight)
            if penalty.utility == "hard":
                self._basis = null_space(benign, penalty.null_threshold)
                q = self._basis.mT @ q @ self._basis
        self.free_directions = q.shape[0]
        self._root = _cholesky(q, self.ridge)

    def solve(self, right_side: torch.Tensor, squared_gap: float) -> RankPath:
        """All edits for B [d, m] and ‖D‖²/N."""
        b = right_side.to(torch.float64)
        inside = b if self._basis is None else self._basis.mT @ b
        whitened = torch.linalg.solve_triangular(self._root, inside, upper=False)

        def lift(directions: torch.Tensor) -> torch.Tensor:
            a: torch.Tensor = torch.linalg.solve_triangular(self._root.mT, whitened @ directions, upper=True)
            return a if self._basis is None else self._basis @ a

        return RankPath(whitened, lift, squared_gap)


class Anchored:
    """The edits of a layer from rows of inputs, by whichever form is cheaper.

    Args:
        low: Harmful inputs X, [N, d].
        benign: Harmless inputs X_s, [N_s, d]; None without any.
        penalty: What keeps the edit small.
        weights: Weights of the rows of `low`, [N]; equal if None. They are divided by their sum.
        form: `dense` factors Q [d, d]; `kernel` works with [N + N_s, N + N_s]; None takes the smaller one. `hard`
            always takes the dense form.

    Attributes:
        form: The form that was taken.
        ridge: λ = λ̂t as it was used.
        free_directions: Dimensions that the edit may use.

    Raises:
        EditError: Inputs are not finite, there are fewer than two harmful rows, Q is singular, or `hard` leaves no
            direction.
    """

    def __init__(
        self,
        low: torch.Tensor,
        benign: torch.Tensor | None,
        penalty: Penalty,
        *,
        weights: torch.Tensor | None = None,
        form: Literal["dense", "kernel"] | None = None,
    ) -> None:
        _require_usable(low, benign)
        w = torch.ones(low.shape[0], dtype=torch.float64, device=low.device) if weights is None else weights
        self._scale = (w.to(torch.float64) / w.sum()).sqrt()[:, None]
        self._low = self._scale * low.to(torch.float64)
        kept = None if benign is None or penalty.utility == "none" else benign
        rows = low.shape[0] + (0 if kept is None else kept.shape[0])
        self.form = "dense" if penalty.utility == "hard" else form or ("kernel" if rows < low.shape[1] else "dense")
        if self.form == "kernel":
            self._factor_kernel(kept, penalty)
        else:
            self._metric = Metric(self._low.mT @ self._low, None if kept is None else _moment(kept), penalty)
            self.ridge, self.free_directions = self._metric.ridge, self._metric.free_directions

    def _factor_kernel(self, benign: torch.Tensor | None, penalty: Penalty) -> None:
        self._stacked = self._low
        if benign is not None:
            scaled = benign.to(torch.float64) * math.sqrt(penalty.utility_weight / benign.shape[0])
            self._stacked = torch.cat([self._low, scaled])
        self.ridge = penalty.ridge * float(self._low.square().sum()) / self._low.shape[1]
        self.free_directions = self._low.shape[1]
        if self._stacked.shape[0] < self._stacked.shape[1] and self.ridge == 0:
            raise _singular(self.ridge)
        self._gram = self._stacked @ self._stacked.mT
        self._root = _cholesky(self._gram, self.ridge)

    def solve(self, gap: torch.Tensor) -> RankPath:
        """All edits for the wanted displacements D [N, m]."""
        wanted = self._scale * gap.to(torch.float64)
        squared_gap = float(wanted.square().sum())
        if self.form == "dense":
            return self._metric.solve(self._low.mT @ wanted, squared_gap)
        padded = torch.cat([wanted, wanted.new_zeros(self._stacked.shape[0] - wanted.shape[0], wanted.shape[1])])
        dual = torch.cholesky_solve(padded, self._root)
        # M = Zᵀ·dual, and MᵀQM = ‖ZM‖² + λ‖M‖²: stacking both gives a matrix with the singular values of Y
        whitened = torch.cat([self._gram @ dual, math.sqrt(self.ridge) * (self._stacked.mT @ dual)])
        return RankPath(whitened, lambda directions: self._stacked.mT @ (dual @ directions), squared_gap)


def from_moments(
    low: LayerMoments, benign: LayerMoments | None, penalty: Penalty, units: torch.Tensor, *, gain: float = 1.0
) -> RankPath:
    """All edits from second moments alone, whatever the number of anchors was.

    With D = (gain·P − X)W, for P the inputs of the parallel prompts in the pivot, B and ‖D‖² follow from the moments
    XᵀX, XᵀP and PᵀP, which are the same for all units, penalties, ranks and gains, and add up over languages.

    Args:
        low: Moments of the harmful inputs X, paired with P.
        benign: Moments of the harmless inputs.
        penalty: What keeps the edit small.
        units: Weights W of the units as columns, [d, m].
        gain: Factor on the pivot's activations.

    Raises:
        EditError: The moments have no pairs, or as for `Metric`.
    """
    if low.xy is None or low.yy is None:
        raise EditError("the moments of the harmful anchors lack those of their parallels in the pivot")
    w, count = units.to(torch.float64), low.count
    xx, xy, yy = (part.total / count for part in (low.xx, low.xy, low.yy))
    spread = gain**2 * yy - gain * (xy + xy.mT) + xx
    metric = Metric(xx, None if benign is None else benign.xx.total / benign.count, penalty)
    return metric.solve((gain * xy - xx) @ w, float((w * (spread @ w)).sum()))


def null_space(benign: torch.Tensor, threshold: float) -> torch.Tensor:
    """Directions in which harmless inputs hardly vary, [d, k] with orthonormal columns.

    Args:
        benign: Their second moment, [d, d].
        threshold: Share of the largest eigenvalue below which an eigenvalue counts as zero.

    Raises:
        EditError: There is none.
    """
    values: torch.Tensor
    vectors: torch.Tensor
    values, vectors = torch.linalg.eigh(benign.to(torch.float64))
    free = values < threshold * values[-1]
    if not bool(free.any()):
        raise EditError(
            "the harmless inputs vary in every direction, so that `utility: hard` leaves nothing to edit",
            remedy="raise `null_threshold`, or use `utility: soft`",
        )
    return vectors[:, free]


def _moment(rows: torch.Tensor) -> torch.Tensor:
    x = rows.to(torch.float64)
    return x.mT @ x / x.shape[0]


def _typical(diagonal: torch.Tensor) -> float:
    return float(diagonal.sum()) / diagonal.shape[0]


def _cholesky(matrix: torch.Tensor, ridge: float) -> torch.Tensor:
    """Lower factor of `matrix + ridge·I`; refuses what is singular to working precision, and never adds jitter."""
    size = matrix.shape[0]
    shifted = matrix.clone()
    shifted.diagonal().add_(ridge)
    root: torch.Tensor
    root, failed = torch.linalg.cholesky_ex(shifted)
    pivots = root.diagonal().square()
    if int(failed) or float(pivots.min()) <= size * torch.finfo(torch.float64).eps * float(shifted.diagonal().max()):
        raise _singular(ridge)
    return root


def _singular(ridge: float) -> EditError:
    return EditError(
        f"the anchors do not determine the edit: the system is singular with a ridge of {ridge:.3g}",
        remedy="raise `ridge` (0.01 is the default), or use more anchors than the layer has inputs",
    )


def _require_usable(low: torch.Tensor, benign: torch.Tensor | None) -> None:
    if low.shape[0] < 2:
        raise EditError(f"{low.shape[0]} harmful anchors are too few for an edit", remedy="use at least two")
    for name, rows in (("harmful", low), ("harmless", benign)):
        if rows is not None and not bool(rows.isfinite().all()):
            row = int((~rows.isfinite()).any(1).nonzero()[0])
            raise EditError(f"the activations of the {name} anchor in row {row} are not finite")
