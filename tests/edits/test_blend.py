"""Blends: every number is the exact sum, rounded once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.edits.operations import Blend, Copy
from tests.edits.memory import ALPHAS, FLOATS, evaluate, every_finite, family, random, rounded_once, same_bits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_blend_of_16_bit_numbers_is_float32_rounded_once(alpha: float, dtype: torch.dtype) -> None:
    a = every_finite(dtype)
    for seed in range(3):
        b = a[torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))]
        fits = (b.float() - a.float()).isfinite()  # bfloat16 reaches as far as float32
        x, y = a[fits], b[fits]
        result = evaluate(Blend(weights={"a": 1 - alpha, "b": alpha}), {"a": x, "b": y})
        exact = (1 - alpha) * x.double() + alpha * y.double()
        assert rounded_once(result, exact, x, y)
        heavier, lighter = (y, x) if alpha >= 0.5 else (x, y)
        assert same_bits(result, torch.lerp(lighter.float(), heavier.float(), max(alpha, 1 - alpha)).to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mean_is_exact_before_it_is_rounded(dtype: torch.dtype) -> None:
    a = random(1, (100, 100), dtype)
    b = random(2, (100, 100), dtype)
    result = evaluate(Blend(weights={"a": 0.5, "b": 0.5}), {"a": a, "b": b})
    assert torch.equal(result, (0.5 * a.float() + 0.5 * b.float()).to(dtype))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_float32_is_blended_in_float64(alpha: float) -> None:
    a, b = random(1, (100, 100), torch.float32), random(2, (100, 100), torch.float32)
    result = evaluate(Blend(weights={"a": 1 - alpha, "b": alpha}), {"a": a, "b": b})
    assert rounded_once(result, (1 - alpha) * a.double() + alpha * b.double(), a, b)


@pytest.mark.fault(5, "denormal numbers")
@pytest.mark.parametrize("weights", [{"a": 0.2, "b": 0.3, "c": 0.5}, {"a": 1.5, "b": -0.5}, {"b": 0.25}, {"a": 2.0}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_any_weighted_sum_is_rounded_once(weights: dict[str, float], dtype: torch.dtype) -> None:
    models = family(dtype, (100, 100))
    exact = sum((w * models[n].double() for n, w in weights.items()), torch.zeros((), dtype=torch.float64))
    assert rounded_once(evaluate(Blend(weights=weights), models), exact, *models.values())


@pytest.mark.parametrize("start", FLOATS)
@pytest.mark.parametrize("other", FLOATS)
def test_mixed_storage_types_are_blended_wide(start: torch.dtype, other: torch.dtype) -> None:
    models = {"a": random(1, dtype=start), "b": random(2, dtype=other)}
    result = evaluate(Blend(weights={"a": 0.3, "b": 0.7}), models)
    assert result.dtype == start
    exact = 0.3 * models["a"].double() + 0.7 * models["b"].double()
    assert rounded_once(result, exact, *models.values())


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_storage_type_of_the_edit(dtype: str) -> None:
    models = family(torch.float32)
    for operation in (Copy(source="b"), Blend(weights={"a": 0.3, "b": 0.7})):
        result = evaluate(operation, models, dtype=dtype)
        assert result.dtype == torch_dtype(dtype)
    assert torch.equal(evaluate((), models, dtype=dtype), models["a"].to(torch_dtype(dtype)))


def test_only_floating_point_tensors_are_converted() -> None:
    counts = torch.arange(4)
    assert same_bits(evaluate((), {"a": counts}, dtype="F16"), counts)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_authors_arithmetic_rounds_every_product_and_sum(alpha: float) -> None:
    a, b = random(1), random(2)
    result = evaluate(Blend(weights={"a": alpha, "b": 1 - alpha}, arithmetic="authors"), {"a": a, "b": b})
    assert same_bits(result, alpha * a + (1 - alpha) * b)


@pytest.mark.fault(17, "order of experts")
@given(st.permutations(["a", "b", "c", "d"]), st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_order_of_sources_does_not_change_a_bit(order: list[str], weights: list[float]) -> None:
    models = family()
    weighted = dict(zip("abcd", weights, strict=True))
    for size in (2, 3, 4):
        named = [n for n in order if n in "abcd"[:size]]
        results = [evaluate(Blend(weights={n: weighted[n] for n in names}), models) for names in (named, sorted(named))]
        assert same_bits(*results)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_names_of_sources_do_not_change_a_bit(alpha: float, dtype: torch.dtype) -> None:
    a, b = every_finite(torch.float16).to(dtype), every_finite(torch.float16).flip(0).to(dtype)
    one = evaluate(Blend(weights={"a": alpha, "b": 1 - alpha}), {"a": a, "b": b})
    two = evaluate(Blend(weights={"b": alpha, "a": 1 - alpha}), {"b": a, "a": b}, start="b")
    assert same_bits(one, two)
