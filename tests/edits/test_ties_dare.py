"""TIES against the published rule, DARE against its distribution."""

from __future__ import annotations

import math

import pytest
import torch

from polysafe.edits.operations import Blend, Ties
from polysafe.edits.reader import EditedReader
from tests.edits.memory import MemoryReader, dare, edit_of, evaluate, family, rounded_once, same_bits


def literal_ties(base: float, experts: list[float], thresholds: list[float], weights: list[float]) -> float:
    """The published rule for one element, in plain Python."""
    trimmed = [e - base if abs(e - base) >= t else 0.0 for e, t in zip(experts, thresholds, strict=True)]
    scaled = [w * d for w, d in zip(weights, trimmed, strict=True)]
    sign = math.copysign(1.0, sum(scaled)) if sum(scaled) else 0.0
    agreeing = [d for d in scaled if d * sign > 0]
    return base + (sum(agreeing) / len(agreeing) if agreeing else 0.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_ties_equals_the_published_rule_element_by_element(dtype: torch.dtype) -> None:
    models = family(dtype)
    thresholds, weights = {"b": 0.05, "c": 0.0, "d": 0.1}, {"b": 1.0, "c": 0.5, "d": 0.8}
    result = evaluate(Blend(weights=weights, rule=Ties(base="a", thresholds=thresholds)), models)
    flat = {name: tensor.double().view(-1).tolist() for name, tensor in models.items()}
    wanted = [
        literal_ties(base, list(experts), list(thresholds.values()), list(weights.values()))
        for base, *experts in zip(*(flat[n] for n in "abcd"), strict=True)
    ]
    assert rounded_once(result, torch.tensor(wanted, dtype=torch.float64).view(12, 10), *models.values())


def test_ties_of_two_equal_experts_is_that_expert() -> None:
    a, b = torch.randn(20, 20), torch.randn(20, 20)
    rule = Ties(base="a", thresholds={"b": 0.0, "c": 0.0})
    assert torch.equal(evaluate(Blend(weights={"b": 1.0, "c": 1.0}, rule=rule), {"a": a, "b": b, "c": b}), b)


@pytest.mark.parametrize(
    ("shares", "merged"),
    [
        (None, [3.0, -2.0, 0.0, 0.0]),  # as published: the mean of what agrees, and nothing where signs hold each other
        ({}, [6.0, -4.0, 1.0, 0.0]),  # the sum; zero elects plus
        ({"b": 1.0, "c": 3.0, "d": 0.5}, [1.5, -1.0, 1.0, 0.0]),
        ({"b": 1.0, "c": -1.0, "d": 4.0}, [6.0, -4.0, 1.0, 0.0]),  # shares that add up to nothing divide by nothing
    ],
)
def test_ties_with_shares_divides_by_those_of_the_experts_that_agree(
    shares: dict[str, float] | None, merged: list[float]
) -> None:
    moves = {"b": [2.0, -2.0, 1.0, 0.0], "c": [4.0, -2.0, -1.0, 0.0], "d": [-1.0, 1.0, 0.0, 0.0]}
    models = {"a": torch.full((1, 4), 8.0)} | {name: torch.tensor([moved]) + 8.0 for name, moved in moves.items()}
    rule = Ties(base="a", thresholds=dict.fromkeys(moves, 0.0), shares=shares)
    assert (evaluate(Blend(weights=dict.fromkeys(moves, 1.0), rule=rule), models) - 8.0).tolist() == [merged]


SIDE = 400
CLOUD = {"a": torch.zeros(SIDE, SIDE), "b": torch.ones(SIDE, SIDE), "c": torch.ones(SIDE, SIDE)}


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9, 0.99])
def test_dare_keeps_the_right_share_and_rescales(drop: float) -> None:
    result = evaluate(dare(drop), CLOUD)
    kept = int((result != 0).sum())
    deviation = math.sqrt(SIDE**2 * drop * (1 - drop))
    assert abs(kept - SIDE**2 * (1 - drop)) < 5 * deviation
    assert torch.equal(result[result != 0].unique(), torch.tensor([1 / (1 - drop)], dtype=torch.float64).float())


@pytest.mark.parametrize("axis", [0, 1])
def test_dare_drops_rows_and_columns_alike(axis: int) -> None:
    shares = (evaluate(dare(0.5), CLOUD) != 0).double().mean(axis)
    assert float((shares - 0.5).abs().max()) < 5 * math.sqrt(0.25 / SIDE)
    assert float(shares.var()) == pytest.approx(0.25 / SIDE, rel=0.5)


def test_dare_draws_anew_for_every_seed_expert_and_tensor() -> None:
    def mask(blend: Blend, tensor: str = "w") -> torch.Tensor:
        reader = EditedReader(edit_of({tensor: blend}), {n: MemoryReader({tensor: CLOUD[n]}) for n in "abc"} | EMPTY)
        return reader.whole(tensor) != 0

    masks = [mask(dare(0.5)), mask(dare(0.5, seed=1)), mask(dare(0.5, experts="c")), mask(dare(0.5), "v")]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert abs(float((one & other).double().mean()) - 0.25) < 5 * math.sqrt(0.1875 / SIDE**2)
    assert torch.equal(mask(dare(0.5)), mask(dare(0.5)))


EMPTY = {"d": MemoryReader({})}


@pytest.mark.parametrize("columns", [1, 3, 7, 8, 10])
def test_dare_does_not_depend_on_blocks(columns: int) -> None:
    """The generator makes four words at a time: rows begin at any of them."""
    models = {"a": torch.zeros(30, columns), "b": torch.ones(30, columns)}
    whole = evaluate(dare(0.5), models)
    for step in (1, 2, 5, 29):
        assert same_bits(evaluate(dare(0.5), models, step=step), whole)


def test_dare_without_dropping_is_task_arithmetic() -> None:
    models = family(torch.float32)
    wanted = models["a"].double() + 0.5 * sum((models[n].double() - models["a"].double()) for n in "bc")
    assert torch.equal(evaluate(dare(0.0, experts="bc", scale=0.5), models), wanted.float())


def test_dare_then_ties() -> None:
    """Where one of two opposite experts is dropped, the other decides."""
    models = {"a": torch.zeros(SIDE, SIDE), "b": torch.ones(SIDE, SIDE), "c": -torch.ones(SIDE, SIDE)}
    result = evaluate(dare(0.5, experts="bc", then=Ties(base="a", thresholds={"b": 0, "c": 0})), models)
    assert set(result.unique().tolist()) == {-2.0, 0.0, 2.0}
    for value in (-2.0, 2.0):
        assert abs(float((result == value).double().mean()) - 0.25) < 5 * math.sqrt(0.1875 / SIDE**2)
