"""Moments, weights and precision of the rows, and rows that are refused."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import EditError
from polysafe.methods.sparse_edit.reduced_rank import Anchored, Penalty, from_moments
from polysafe.probe.moments import LayerMoments
from tests.methods.sparse_edit.problem import F64, N_LOW, RANK, SOFT, D, M, Problem, edit, literal, make, relative


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


def test_half_precision_inputs_are_summed_in_float64() -> None:
    p = make(19)
    rounded = Problem(*(part.to(torch.float32) for part in (p.low, p.pivot, p.safe, p.units)))
    delta = edit(rounded, SOFT, RANK)
    assert delta.dtype == F64
    assert relative(delta, edit(p, SOFT, RANK)) < 1e-5


@pytest.mark.fault(18, "ill-conditioned moments")
@pytest.mark.parametrize("form", ["dense", "kernel"])
def test_a_singular_system_is_refused(form: str) -> None:
    p = make(20, n_low=20, n_safe=30)
    with pytest.raises(EditError, match="singular"):
        edit(p, Penalty(ridge=0.0), form=form)
    enough = make(20, n_low=60, n_safe=60)
    assert relative(edit(enough, Penalty(ridge=0.0)), literal(enough, Penalty(ridge=0.0), M)) < 1e-9


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


@pytest.mark.parametrize("form", ["dense", "kernel"])
def test_scale_and_number_of_anchors_do_not_matter(form: str) -> None:
    p = make(23)
    doubled = Problem(p.low.repeat(2, 1), p.pivot.repeat(2, 1), p.safe.repeat(2, 1), p.units)
    assert relative(edit(doubled, SOFT, RANK, form), edit(p, SOFT, RANK, form)) < 1e-11
    scaled = Problem(8 * p.low, 8 * p.pivot, 8 * p.safe, p.units / 8)
    assert relative(edit(scaled, SOFT, RANK, form), edit(p, SOFT, RANK, form) / 8) < 1e-12
