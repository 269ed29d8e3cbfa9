"""The closed form of sparse weight editing beside other ways to compute it: agreement first, then time.

    python -m benchmarks.speed.solver [--sizes 1024 2048 3584] [--runs 3] [--output FILE]

Every side gets the same anchors: rows with a spectrum that falls like that of a language model, three of whose
directions are 300 times larger, and `d / 14` units. Times are CPU seconds of one thread, the best of some repeats, so
that they mean the same on a busy machine.

| side | from | what it computes |
|---|---|---|
| moments | rows | XᵀX, X_sᵀX_s and XᵀD, which all sides but the kernel form start from |
| ours | moments | one Cholesky factor, triangular solves, decomposition of a small triangular factor |
| literal | moments | the algorithm as printed: ridge solution, whitening, tall SVD, un-whitening |
| explicit inverse | moments | Q⁻¹ as a matrix, then the eigenvectors of BᵀQ⁻¹B |
| ours, kernel | rows | the same edit from the Gram matrix of the anchors, everything included |
| ours, hard | moments | restricted to the null space of harmless inputs by a symmetric eigen-decomposition |
| AlphaEdit | moments | projector from a full SVD of the harmless moment, one general solve; no rank |
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.frame import timing
from polysafe.methods.sparse_edit.reduced_rank import Anchored, Metric, Penalty

RANK = 32
AGREEMENT = 1e-9
SOFT = Penalty()
HARD = Penalty(utility="hard", utility_weight=0.0, null_threshold=1e-3)


@dataclass(frozen=True)
class Row:
    """One side at one size.

    Attributes:
        d: Width of the layer's input.
        harmful: Number of harmful anchors.
        harmless: Number of harmless anchors.
        side: What was computed.
        seconds: CPU seconds of one thread.
        difference: Relative difference of the edit to that of the side it is compared with, None for that side.
    """

    d: int
    harmful: int
    harmless: int
    side: str
    seconds: float
    difference: float | None


class Problem:
    """Anchors with a falling spectrum and three directions that are 300 times larger, and their moments."""

    def __init__(self, d: int, harmful: int, harmless: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        scale = torch.arange(1, d + 1, dtype=torch.float64) ** -0.5
        scale[:3] *= 300
        self.d, self.harmful, self.harmless = d, harmful, harmless
        self.rows, self.safe_rows = normal(harmful, d) * scale, normal(harmless, d) * scale
        self.gap = 0.3 * (normal(harmful, d) * scale) @ (normal(d, d // 14) / d**0.5)
        self.squared_gap = float(self.gap.square().sum()) / harmful
        self.low, self.safe, self.b = self.moments()
        self.ridge = SOFT.ridge * float(self.low.trace()) / d

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """XᵀX/N, X_sᵀX_s/N_s, XᵀD/N."""
        x, s = self.rows, self.safe_rows
        return x.mT @ x / len(x), s.mT @ s / len(s), x.mT @ self.gap / len(x)

    def q(self) -> torch.Tensor:
        """The system matrix of the soft problem."""
        return _shifted(self.low + self.safe, self.ridge)

    def ours(self) -> torch.Tensor:
        """The edit as polysafe computes it from moments."""
        return Metric(self.low, self.safe, SOFT).solve(self.b, self.squared_gap).truncate(RANK).dense

    def kernel(self) -> torch.Tensor:
        """The edit as polysafe computes it from few rows."""
        return Anchored(self.rows, self.safe_rows, SOFT, form="kernel").solve(self.gap).truncate(RANK).dense

    def hard(self) -> torch.Tensor:
        """The edit inside the null space of harmless inputs, of any rank."""
        return Metric(self.low, self.safe, HARD).solve(self.b, self.squared_gap).truncate(None).dense

    def literal(self) -> torch.Tensor:
        """The algorithm as printed."""
        upper = torch.linalg.cholesky(self.q()).mT
        ridge_solution = torch.cholesky_solve(self.b, upper.mT)
        left, values, right = torch.linalg.svd(upper @ ridge_solution, full_matrices=False)
        cut = torch.linalg.solve_triangular(upper, left[:, :RANK] * values[:RANK], upper=True)
        edit: torch.Tensor = cut @ right[:RANK]
        return edit

    def explicit_inverse(self) -> torch.Tensor:
        """Q⁻¹ as a matrix, then the reduced-rank form."""
        ridge_solution: torch.Tensor = torch.linalg.inv(self.q()) @ self.b
        _, vectors = torch.linalg.eigh(self.b.mT @ ridge_solution)
        edit: torch.Tensor = ridge_solution @ vectors[:, -RANK:] @ vectors[:, -RANK:].mT
        return edit

    def alphaedit(self) -> torch.Tensor:
        """Fang et al., ICLR 2025: ΔW = (PKKᵀ + λI)⁻¹PKRᵀ, P from the thresholded SVD of the harmless moment."""
        left, values, _ = torch.linalg.svd(self.safe)
        kept = left[:, values < HARD.null_threshold * values[0]]
        projector = kept @ kept.mT
        system = _shifted(projector @ self.low, self.ridge)
        solution: torch.Tensor = torch.linalg.solve(system, projector @ self.b)
        return solution

    def sides(self) -> list[tuple[str, Callable[[], object], str | None]]:
        """Every side with the one that it has to agree with."""
        few = self.harmful + self.harmless < self.d
        return [
            ("moments", self.moments, None),
            ("ours", self.ours, None),
            ("literal", self.literal, "ours"),
            ("explicit inverse", self.explicit_inverse, "ours"),
            *([("ours, kernel", self.kernel, "ours")] if few else []),
            ("ours, hard", self.hard, None),
            ("AlphaEdit", self.alphaedit, "ours, hard"),
        ]


def _shifted(matrix: torch.Tensor, ridge: float) -> torch.Tensor:
    """Adds ridge·I in place."""
    matrix.diagonal().add_(ridge)
    return matrix


def compare(d: int, harmful: int, harmless: int, repeats: int) -> list[Row]:
    """All sides at one size; a side that does not agree is not timed, and ends the benchmark."""
    problem = Problem(d, harmful, harmless)
    edits: dict[str, torch.Tensor] = {}
    rows: list[Row] = []
    for name, compute, reference in problem.sides():
        result, seconds = _timed(compute)
        difference = None
        if isinstance(result, torch.Tensor):
            edits[name] = result
        if reference is not None:
            difference = float((edits[name] - edits[reference]).norm() / edits[reference].norm())
            if difference > AGREEMENT:
                raise SystemExit(f"d = {d}: {name} differs from {reference} by {difference:.1e}")
        seconds = min([seconds, *(_timed(compute)[1] for _ in range(repeats - 1))])
        rows.append(Row(d, harmful, harmless, name, seconds, difference))
    return rows


def _timed(compute: Callable[[], object]) -> tuple[object, float]:
    began = time.process_time()
    result = compute()
    return result, time.process_time() - began


def main() -> None:
    """Prints a table for every size."""
    parser = timing.options_of(__doc__, ())
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 3584])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for d in options.sizes:
        for harmful, harmless in ((128, 256), (1792, 1024)):
            found = compare(d, harmful, harmless, options.runs)
            rows += found
            print(f"d = {d}, {harmful} harmful and {harmless} harmless anchors, {d // 14} units, rank {RANK}")
            for row in found:
                note = "" if row.difference is None else f"   agrees to {row.difference:.0e}"
                print(f"  {row.side:18}{row.seconds:9.3f} s{note}", flush=True)
    timing.save(options.output, {"rows": rows})


if __name__ == "__main__":
    main()
