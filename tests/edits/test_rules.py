"""The rules of TIES and DARE, bit for bit, against the same arithmetic with masks."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.edits.operations import Blend, Dare, Ties
from tests.edits.memory import evaluate, same_bits

SHAPE = (7, 5)
NAMES = "bcdefghijklmnopqrstu"
TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
FEW = [0.0, -0.0, 0.5, -0.5, 0.25, 1.0, -1.0, 3e-5, 2**-14]
"""Numbers of which differences are often equal, zero, or exactly a threshold."""


def models_of(seed: int, count: int, dtype: torch.dtype, few: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def tensor() -> torch.Tensor:
        if few:
            return torch.tensor(FEW, dtype=dtype)[torch.randint(len(FEW), SHAPE, generator=generator)]
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(dtype)

    return {name: tensor() for name in ("a", *NAMES[:count])}


def kept(rule: Dare, name: str, shape: tuple[int, int]) -> torch.Tensor:
    """DARE's mask of the tensor `w`."""
    key = hashlib.sha256(f"{rule.seed}\0{name}\0w".encode()).digest()[:16]
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(shape[0] * shape[1])
    return torch.from_numpy(words >= np.uint64(int(rule.drop_of(name) * 2.0**64))).view(shape)


def masked(blend: Blend, models: dict[str, torch.Tensor]) -> torch.Tensor:
    """The rule with every selection as a mask, every intermediate value as a new tensor, rounded at the end."""
    rule, base = blend.rule, models["a"].double()
    deltas = {name: models[name].double() - base for name in sorted(blend.weights)}
    if isinstance(rule, Dare):
        deltas = {
            name: torch.where(kept(rule, name, SHAPE), delta / (1.0 - rule.drop_of(name)), 0.0)
            for name, delta in deltas.items()
        }
        rule = rule.then
    weighted = {name: blend.weights[name] * delta for name, delta in deltas.items()}
    if rule is None:
        update = sum(weighted.values(), torch.zeros((), dtype=torch.float64))
    else:
        trimmed = torch.stack(
            [torch.where(deltas[n].abs() >= rule.thresholds[n], value, 0.0) for n, value in weighted.items()]
        )
        agrees = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
        update = torch.where(agrees, trimmed, 0.0).sum(0) / agrees.sum(0).clamp_min(1)
    return torch.where(update == 0, base, base + update).to(models["a"].dtype)


@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([1, 2, 3, 20]),
    dtype=st.sampled_from(TYPES),
    few=st.booleans(),
    threshold=st.sampled_from([0.0, 1e-300, 0.25, 0.5, 1.0]),
    scale=st.sampled_from([1.0, 0.3, -0.7]),
)
def test_ties_is_the_masked_rule(
    seed: int, count: int, dtype: torch.dtype, few: bool, threshold: float, scale: float
) -> None:
    models = models_of(seed, count, dtype, few)
    weights = {name: scale * (1 + place % 2) for place, name in enumerate(NAMES[:count])}
    blend = Blend(weights=weights, rule=Ties(base="a", thresholds=dict.fromkeys(weights, threshold)))
    assert same_bits(evaluate(blend, models), masked(blend, models))


@given(
    seed=st.integers(0, 10_000),
    count=st.sampled_from([1, 2, 3, 20]),
    dtype=st.sampled_from(TYPES),
    few=st.booleans(),
    drop=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    ties=st.booleans(),
)
def test_dare_is_the_masked_rule(seed: int, count: int, dtype: torch.dtype, few: bool, drop: float, ties: bool) -> None:
    models = models_of(seed, count, dtype, few)
    weights = dict.fromkeys(NAMES[:count], 0.3)
    then = Ties(base="a", thresholds=dict.fromkeys(weights, 0.0)) if ties else None
    blend = Blend(weights=weights, rule=Dare(base="a", drop=drop, seed=seed, then=then))
    assert same_bits(evaluate(blend, models), masked(blend, models))


@pytest.mark.parametrize("dtype", TYPES)
def test_an_update_of_either_zero_leaves_the_sign_of_a_zero(dtype: torch.dtype) -> None:
    zeros = torch.tensor([[0.0, -0.0, 0.0, -0.0]], dtype=dtype)
    others = torch.tensor([[0.0, 0.0, -0.0, -0.0]], dtype=dtype)
    for scale in (1.0, -1.0):
        rules = [Ties(base="a", thresholds={"b": 0.0}), Dare(base="a", drop=0.5, seed=0)]
        for rule in rules:
            assert same_bits(evaluate(Blend(weights={"b": scale}, rule=rule), {"a": zeros, "b": others}), zeros)
