"""From effects to heads: rankings, votes, controls."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import EditError, RecipeError
from polysafe.methods.head_steering.choice import (
    Control,
    checked_heads,
    column_ranges,
    combined,
    control_heads,
    first,
    majority,
    ranked,
    share_to_count,
)

maps = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 9999)).map(
    lambda s: torch.randint(-3, 4, s[:2], generator=torch.Generator().manual_seed(s[2])).to(torch.float64)
)


def test_a_strongly_negative_head_comes_last() -> None:
    scores = torch.tensor([[0.1, -5.0], [0.3, 0.0]])
    assert ranked(scores) == ((1, 0), (0, 0), (1, 1), (0, 1))
    assert ranked(scores.abs())[0] == (0, 1)
    assert first(scores, 4, positive=True) == ((1, 0), (0, 0))


@given(maps)
def test_order_is_by_score_then_layer_then_head(scores: torch.Tensor) -> None:
    keys = [(-float(scores[head]), *head) for head in ranked(scores)]
    assert keys == sorted(keys)
    assert len(keys) == scores.numel()


def test_the_mean_follows_large_effects_and_the_z_score_does_not() -> None:
    small = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    large = 100 * torch.tensor([[4.0, 3.0, 2.0, 1.0]]) + torch.tensor([[0.0, 0.0, 0.0, 50.0]])
    both = torch.stack((small, large))
    assert ranked(combined(both, "mean"))[0] == (0, 0)
    assert ranked(combined(both, "mean")) == ranked(large + small)
    assert ranked(combined(both, "zscore"))[0] == (0, 3)
    assert ranked(combined(torch.stack((small, 100 * small)), "zscore")) == ranked(small)


@given(maps, st.sampled_from(["mean", "zscore", "rank"]))
def test_one_task_alone_keeps_its_order(scores: torch.Tensor, how: str) -> None:
    assert ranked(combined(scores[None], how)) == ranked(scores)  # type: ignore[arg-type]


@given(maps)
def test_ranks_ignore_scale_and_share_ties(scores: torch.Tensor) -> None:
    both = torch.stack((scores, scores**3))
    assert torch.equal(combined(both, "rank"), combined(both[:1], "rank"))
    assert combined(torch.ones(1, 2, 2), "rank").unique().tolist() == [0.5]


@pytest.mark.parametrize(("languages", "needed"), [(5, 3), (4, 3), (3, 2), (12, 7), (1, 1)])
def test_a_head_needs_more_than_half_of_the_languages(languages: int, needed: int) -> None:
    sets = [[(0, 0)] + ([(1, 1)] if index < needed else []) + ([(2, 2)] if index < needed - 1 else [])
            for index in range(languages)]  # fmt: skip
    assert majority(sets) == ((0, 0), (1, 1))


def test_half_of_a_large_model() -> None:
    assert share_to_count(0.5, 1024) == 512
    assert share_to_count(0.5, 784) == 392
    assert share_to_count(0.001, 48) == 1
    assert share_to_count(1.0, 48) == 48


@given(maps, st.data())
def test_controls(scores: torch.Tensor, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, scores.numel()))
    seed = data.draw(st.integers(0, 5))
    chosen = first(scores, count)
    kinds: tuple[Control, ...] = ("random", "random_per_layer", "bottom")
    for kind in kinds:
        heads = control_heads(kind, chosen, scores, seed)
        assert len(set(heads)) == len(heads) == count
        assert list(heads) == sorted(heads)
        assert heads == control_heads(kind, chosen, scores, seed)
    per_layer = control_heads("random_per_layer", chosen, scores, seed)
    assert Counter(layer for layer, _ in per_layer) == Counter(layer for layer, _ in chosen)
    bottom = control_heads("bottom", chosen, scores)
    assert max(float(scores[head]) for head in bottom) <= min(
        (float(scores[head]) for head in ranked(scores) if head not in bottom), default=9.0
    )
    assert len(control_heads("all", chosen, scores)) == scores.numel()


def test_random_heads_depend_on_the_seed() -> None:
    scores = torch.zeros(8, 8)
    drawn = {control_heads("random", first(scores, 16), scores, seed) for seed in range(10)}
    assert len(drawn) == 10


def test_heads_that_do_not_exist_are_refused() -> None:
    for head in ((0, 4), (2, 0), (-1, 0)):
        with pytest.raises(RecipeError, match=f"no head {head[1]} in layer {head[0]}"):
            checked_heads([head], layers=range(2), per_layer=4)
    assert checked_heads([(1, 3), (0, 0), (1, 3)], range(2), 4) == (((0, 0), (1, 3)), 1)
    with pytest.raises(EditError, match="no head is chosen"):
        checked_heads([], range(2), 4)


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=1), st.integers(1, 5))
def test_ranges_cover_the_heads_of_a_layer(heads: set[tuple[int, int]], size: int) -> None:
    for layer in range(4):
        ranges = column_ranges(heads, layer, size)
        covered = [column for start, stop in ranges for column in range(start, stop)]
        wanted = [head * size + i for other, head in sorted(heads) if other == layer for i in range(size)]
        assert covered == wanted
        assert all(a[1] < b[0] for a, b in pairwise(ranges))
