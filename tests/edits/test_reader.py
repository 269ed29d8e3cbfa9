from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation, Ties, blend
from polysafe.edits.reader import EditedReader
from polysafe.errors import EditError, MismatchError
from tests.edits.memory import MemoryReader, edit_of, evaluate, family, low_ranks, operations, random, same_bits

FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
ALPHAS = [0.001, 0.1, 0.25, 0.3, 1 / 3, 0.49999, 0.5, 0.7, 0.9, 0.999]


def every_finite(dtype: torch.dtype) -> torch.Tensor:
    """Every finite 16-bit number, subnormals and both zeros among them."""
    patterns = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16)).view(dtype)
    return patterns[patterns.isfinite()]


def rounded_once(result: torch.Tensor, exact: torch.Tensor, *terms: torch.Tensor) -> bool:
    """Whether the error is that of one rounding to storage, beside that of arithmetic on `terms` in a wide type."""
    above = torch.nextafter(result.abs(), torch.full_like(result, math.inf)).double()
    storage = (above - result.abs().double()) / 2
    largest = torch.stack([term.double().abs() for term in (exact, *terms)]).amax(0)
    wide = 2.0**-22 if all(t.dtype.itemsize == 2 for t in (result, *terms)) else 2.0**-50
    return bool(((result.double() - exact).abs() <= storage + wide * largest).all())


# ---- Blend -----------------------------------------------------------------------------------------------------------


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


# ---- identities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_same_expert_twice_is_that_expert(alpha: float, dtype: torch.dtype) -> None:
    a = every_finite(torch.bfloat16).to(dtype)
    a = a[a.isfinite()]
    assert same_bits(evaluate(Blend(weights={"a": alpha, "b": 1 - alpha}), {"a": a, "b": a}), a)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_same_expert_several_times_is_that_expert(dtype: torch.dtype) -> None:
    a = every_finite(torch.float16).to(dtype)
    weights = {"a": 0.2, "b": 0.3, "c": 0.1, "d": 0.4}
    assert same_bits(evaluate(Blend(weights=weights), dict.fromkeys("abcd", a)), a)


@pytest.mark.parametrize("dtype", FLOATS)
def test_weights_of_zero_and_one_reproduce_the_inputs(dtype: torch.dtype) -> None:
    models = family(dtype)
    assert same_bits(evaluate(blend({"a": 0.0, "b": 1.0}), models), models["b"])
    assert same_bits(evaluate(blend({"a": 1.0, "b": 0.0}), models), models["a"])
    assert same_bits(evaluate(Blend(weights={"b": 1.0}), models), models["b"])
    assert same_bits(evaluate(Copy(source="c"), models), models["c"])


@pytest.mark.parametrize("dtype", FLOATS)
def test_strength_zero_changes_nothing(dtype: torch.dtype) -> None:
    models = family(dtype)
    no_factor = AddLowRank(rows=torch.arange(12), a=torch.randn(12, 2), b=torch.zeros(10, 2))
    changes: list[Operation] = [
        AddDelta(of="b", minus="c", scale=0.0),
        AddDelta(of="b", minus="b", scale=3.0),
        AddDelta(of="b", minus="b", scale=-3.0),
        AddDelta(of="b", minus="c", scale=1.0, columns=()),
        no_factor,
        no_factor.model_copy(update={"a": -no_factor.a}),
        AddLowRank(rows=torch.arange(0), a=torch.zeros(0, 2), b=torch.randn(10, 2)),
        AddLowRank(rows=torch.arange(12), a=torch.zeros(12, 0), b=torch.zeros(10, 0)),
        Blend(weights={"b": 0.0}, rule=Dare(base="a", drop=0.5, seed=0)),
        Blend(weights={"b": 1.0}, rule=Ties(base="a", thresholds={"b": 1e30})),
    ]
    for operation in changes:
        assert same_bits(evaluate(operation, models), models["a"]), operation


def test_swapping_twice_restores() -> None:
    models = family()
    swapped = evaluate(Copy(source="b"), models)
    assert same_bits(evaluate(Copy(source="b"), {"a": swapped, "b": models["a"]}), models["a"])


@pytest.mark.parametrize("operation", [Copy(source="b"), Copy(source="a"), ()])
def test_copies_are_byte_for_byte_whatever_the_bytes_are(operation: Operation | tuple[()]) -> None:
    """NaN with a payload, infinities, subnormals."""
    every = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16)).view(torch.bfloat16)
    assert same_bits(evaluate(operation, {"a": every, "b": every.clone()}), every)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float8_e4m3fn, torch.complex64])
def test_other_types_are_copied(dtype: torch.dtype) -> None:
    a, b = (torch.arange(6).view(2, 3) + i for i in range(2))
    assert same_bits(evaluate(Copy(source="b"), {"a": a.to(dtype), "b": b.to(dtype)}), b.to(dtype))


# ---- independence of blocks ------------------------------------------------------------------------------------------


@given(operations(), st.integers(1, 13), st.sampled_from(FLOATS[:3]))
def test_blocks_do_not_change_a_bit(operation: Operation, step: int, dtype: torch.dtype) -> None:
    models = family(dtype)
    assert same_bits(evaluate(operation, models, step=step), evaluate(operation, models))


@pytest.mark.parametrize("shape", [(), (7,), (0,), (0, 4), (4, 0), (3, 4, 5)])
def test_tensors_of_any_shape(shape: tuple[int, ...]) -> None:
    models = family(shape=shape)
    for operation in (Copy(source="b"), Blend(weights={"a": 0.3, "b": 0.7}), AddDelta(of="b", minus="a", scale=1.0)):
        result = evaluate(operation, models)
        assert result.shape == shape
        if result.numel():
            assert same_bits(evaluate(operation, models, step=1), result)


def test_threads_do_not_change_a_bit() -> None:
    models = family(shape=(300, 1001))
    threads = torch.get_num_threads()
    operation = (Blend(weights={"a": 0.3, "b": 0.7}), AddDelta(of="c", minus="b", scale=0.1))
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(evaluate(operation, models))
    finally:
        torch.set_num_threads(threads)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


# ---- stacks ----------------------------------------------------------------------------------------------------------


def test_start_means_the_value_so_far() -> None:
    models = family(torch.float32)
    result = evaluate((Copy(source="b"), Blend(weights={"a": 0.5, "c": 0.5})), models)
    assert torch.equal(result, (0.5 * models["b"].double() + 0.5 * models["c"].double()).float())
    assert same_bits(evaluate((Copy(source="b"), Copy(source="a")), models), models["b"])
    assert same_bits(evaluate((Copy(source="b"), Copy(source="c")), models), models["c"])


def test_a_stack_is_rounded_once() -> None:
    """Three steps of 0.4 units of the last place: rounded each time, nothing would ever move."""
    one = torch.ones(4, 4, dtype=torch.bfloat16)
    step = torch.full((4, 4), 0.4 * 2**-7, dtype=torch.bfloat16)
    models = {"a": one, "b": step, "c": torch.zeros_like(one)}
    add = AddDelta(of="b", minus="c", scale=1.0)
    assert same_bits(evaluate(add, models), one)
    assert torch.equal(evaluate((add, add, add), models), one + 2**-7)


def test_the_same_operation_twice_is_still_rounded_once() -> None:
    """The very same object, as when an edit is stacked on itself."""
    a, b = random(1, (50, 50)), random(2, (50, 50))
    operation = Blend(weights={"a": 0.7, "b": 0.3})
    once = edit_of({"w": operation}, sources="ab")
    reader = EditedReader(once.then(once), {"a": MemoryReader({"w": a}), "b": MemoryReader({"w": b})})
    exact = 0.49 * a.double() + 0.51 * b.double()
    assert rounded_once(reader.whole("w"), exact, a, b)


UNROUNDED = operations().filter(lambda operation: getattr(operation, "arithmetic", None) != "authors")


@given(st.lists(UNROUNDED, min_size=1, max_size=3), st.lists(UNROUNDED, min_size=1, max_size=2))
def test_stacked_edits_equal_one_after_the_other_where_nothing_is_rounded(
    first: list[Operation], second: list[Operation]
) -> None:
    models = family(torch.float64)
    between = evaluate(tuple(first), models)
    assert same_bits(evaluate((*first, *second), models), evaluate(tuple(second), {**models, "a": between}))


@given(st.lists(operations(), max_size=3))
def test_what_is_announced_is_read_and_nothing_else(listed: list[Operation]) -> None:
    edit = edit_of({"w": tuple(listed)})
    readers = {name: MemoryReader({"w": tensor}) for name, tensor in family().items()}
    EditedReader(edit, readers).rows("w", 0, 12)
    announced = edit.reads("w")
    assert {name: len(reader.read) for name, reader in readers.items()} == {n: announced.count(n) for n in "abcd"}


# ---- AddLowRank, AddDelta --------------------------------------------------------------------------------------------


@given(low_ranks())
def test_low_rank_update_equals_the_dense_one_and_stays_in_its_rows(operation: AddLowRank) -> None:
    for dtype in FLOATS[:3]:
        a = random(3, dtype=dtype)
        dense = a.double()
        dense[operation.rows] += operation.a.double() @ operation.b.double().T
        result = evaluate(operation, {"a": a})
        assert rounded_once(result, dense, a)
        others = torch.ones(12, dtype=torch.bool)
        others[operation.rows] = False
        assert same_bits(result[others], a[others])


def test_low_rank_update_of_a_vector_and_of_a_stack_of_experts() -> None:
    bias = torch.zeros(5)
    ends = AddLowRank(rows=torch.tensor([0, 4]), a=torch.tensor([[2.0], [3.0]]), b=torch.ones(1, 1))
    assert evaluate(ends, {"a": bias}).tolist() == [2, 0, 0, 0, 3]
    experts = torch.zeros(2, 3, 4)  # row 4 of the view is row 1 of expert 1
    update = AddLowRank(rows=torch.tensor([4]), a=torch.ones(1, 1), b=torch.arange(4.0).view(4, 1))
    assert evaluate(update, {"a": experts})[1, 1].tolist() == [0, 1, 2, 3]


@given(st.floats(-3, 3), st.sets(st.integers(0, 10), max_size=6))
def test_delta_equals_the_dense_one_and_stays_in_its_columns(scale: float, edges: set[int]) -> None:
    columns = tuple(zip(sorted(edges)[::2], sorted(edges)[1::2], strict=False))
    inside = torch.zeros(10, dtype=torch.bool)
    for start, stop in columns:
        inside[start:stop] = True
    for dtype in FLOATS[:3]:
        models = family(dtype)
        result = evaluate(AddDelta(of="b", minus="c", scale=scale, columns=columns), models)
        dense = models["a"].double()
        dense[:, inside] += scale * (models["b"].double() - models["c"].double())[:, inside]
        assert same_bits(result[:, ~inside], models["a"][:, ~inside])
        assert rounded_once(result, dense, *models.values())


def test_delta_of_the_value_so_far() -> None:
    models = family(torch.float32)
    result = evaluate(AddDelta(of="a", minus="b", scale=1.0), models)
    assert torch.equal(result, (2 * models["a"].double() - models["b"].double()).float())


# ---- TIES, DARE ------------------------------------------------------------------------------------------------------


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


def dare(
    drop: float, *, seed: int = 0, base: str = "a", experts: str = "b", then: Ties | None = None, scale: float = 1.0
) -> Blend:
    return Blend(weights=dict.fromkeys(experts, scale), rule=Dare(base=base, drop=drop, seed=seed, then=then))


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


# ---- what is refused -------------------------------------------------------------------------------------------------


COMPUTED: dict[str, Operation] = {
    "blend of two": Blend(weights={"a": 0.5, "b": 0.5}),
    "blend of three": Blend(weights={"a": 0.5, "b": 0.25, "c": 0.25}),
    "authors": Blend(weights={"a": 0.5, "b": 0.5}, arithmetic="authors"),
    "ties": Blend(weights={"a": 1, "b": 1}, rule=Ties(base="c", thresholds={"a": 0.1, "b": 0.1})),
    "dare": dare(0.99, base="c", experts="ab"),
    "delta": AddDelta(of="b", minus="c", scale=1.0),
    "stack": (Copy(source="b"), AddDelta(of="a", minus="c", scale=1.0)),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("case", COMPUTED)
def test_numbers_that_are_none_are_traced_to_their_source(case: str, bad: float) -> None:
    for position in (0, 57, 119):
        models = family()
        models["b"].view(-1)[position] = bad
        with pytest.raises(EditError, match=r"are not finite: 'b' holds NaN or infinity") as caught:
            evaluate(COMPUTED[case], models, step=5)
        assert caught.value.where == "w"
        row = position // 10 // 5 * 5
        assert f"rows {row}…{min(row + 5, 12)}" in caught.value.problem


def test_a_broken_start_is_named_too() -> None:
    for operation in (AddDelta(of="b", minus="c", scale=1.0), next(iter(low_rank_of_all()))):
        models = family()
        models["a"][3, 3] = math.nan
        with pytest.raises(EditError, match="'a' holds NaN"):
            evaluate(operation, models)


def low_rank_of_all() -> list[AddLowRank]:
    return [AddLowRank(rows=torch.arange(12), a=torch.ones(12, 1), b=torch.ones(10, 1))]


def test_broken_numbers_elsewhere_do_no_harm() -> None:
    """What is not read for a tensor, and what is only copied, may hold anything."""
    models = family()
    models["d"][0, 0] = math.nan
    assert bool(evaluate(Blend(weights={"a": 0.5, "b": 0.5}), models).isfinite().all())
    assert math.isnan(float(evaluate(Copy(source="d"), models)[0, 0]))


@pytest.mark.parametrize(
    ("operation", "dtype"),
    [
        (Blend(weights={"a": 2.0}), None),
        (Blend(weights={"a": 1.5, "b": -0.5}), None),
        (AddDelta(of="a", minus="b", scale=1.0), None),
        (Copy(source="c"), None),
        ((), "F16"),
        (Copy(source="c"), "F16"),
    ],
)
def test_float16_overflow_is_refused(operation: Operation | tuple[()], dtype: str | None) -> None:
    large = torch.full((4, 4), 60000.0)
    models = {"a": large.half(), "b": -large.half(), "c": 2 * large}
    if operation == ():
        models["a"] = 2 * large
    with pytest.raises(EditError, match="are too large for F16") as caught:
        evaluate(operation, models, dtype=dtype)
    assert "wider storage type" in str(caught.value.remedy)


def test_largest_numbers_are_no_overflow() -> None:
    largest = torch.full((4, 4), 65504.0, dtype=torch.float16)
    assert same_bits(evaluate(Blend(weights={"a": 0.3, "b": 0.7}), {"a": largest, "b": largest}), largest)
    huge = torch.full((64, 64), 3e38)  # their sum is beyond float32, they are not
    assert same_bits(evaluate(Blend(weights={"a": 0.3, "b": 0.7}), {"a": huge, "b": huge}), huge)


@pytest.mark.parametrize(
    ("operation", "change", "words"),
    [
        (Copy(source="b"), lambda m: m["b"].clear(), "'b' has no such tensor"),
        (
            Blend(weights={"a": 0.5, "b": 0.5}),
            lambda m: m["b"].update(w=torch.zeros(3, 2)),
            r"'b' has shape \[3, 2\], 'a' has \[2, 3\]",
        ),
        (Copy(source="b"), lambda m: m["b"].update(w=torch.zeros(6)), r"'b' has shape \[6\]"),
        (
            AddDelta(of="a", minus="b", scale=1.0),
            lambda m: m["b"].update(w=torch.zeros(2, 3, dtype=torch.int8)),
            "'b' stores it as I8, 'a' as F32",
        ),
        (
            Copy(source="b"),
            lambda m: m["b"].update(w=torch.zeros(2, 3, dtype=torch.int64)),
            "'b' stores it as I64, 'a' as F32",
        ),
    ],
)
def test_sources_that_do_not_fit(
    operation: Operation, change: Callable[[dict[str, dict[str, torch.Tensor]]], None], words: str
) -> None:
    models = {name: {"w": torch.zeros(2, 3)} for name in "abcd"}
    change(models)
    with pytest.raises(MismatchError, match=words) as caught:
        EditedReader(edit_of({"w": operation}), {name: MemoryReader(tensors) for name, tensors in models.items()})
    assert caught.value.where == "w"


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (AddLowRank(rows=torch.tensor([2]), a=torch.ones(1, 1), b=torch.ones(3, 1)), "rows up to 2, 3 columns"),
        (AddLowRank(rows=torch.tensor([1]), a=torch.ones(1, 1), b=torch.ones(4, 1)), "does not fit 2 rows × 3 columns"),
        (AddDelta(of="a", minus="b", scale=1.0, columns=((0, 1), (2, 4))), "column 3 is beyond its 3 columns"),
    ],
)
def test_operations_that_do_not_fit(operation: Operation, words: str) -> None:
    readers = {name: MemoryReader({"w": torch.zeros(2, 3)}) for name in "abcd"}
    with pytest.raises(EditError, match=words):
        EditedReader(edit_of({"w": operation}), readers)


def test_operations_on_other_types_and_on_unknown_tensors() -> None:
    readers = {name: MemoryReader({"w": torch.zeros(2, 3, dtype=torch.int64)}) for name in "abcd"}
    with pytest.raises(EditError, match="is stored as I64, which can only be copied"):
        EditedReader(edit_of({"w": Blend(weights={"a": 0.5, "b": 0.5})}), readers)
    with pytest.raises(EditError, match="the edit changes 'x', which 'a' does not have"):
        EditedReader(edit_of({"x": Copy(source="b")}), readers)


def test_view_of_the_result() -> None:
    readers = {name: MemoryReader({"w": torch.zeros(2, 3), "v": torch.zeros(1)}) for name in "abcd"}
    reader = EditedReader(edit_of({}, dtype="BF16"), readers)
    assert reader.names() == ("w", "v")
    assert (reader.spec("w").dtype, reader.spec("w").nbytes, reader.spec("w").shape) == ("BF16", 12, (2, 3))
    assert reader.spec("w").file == Path("memory")


def test_undo_restores_every_bit() -> None:
    models = family()
    steps: dict[str, Operation] = {"w": Blend(weights={"a": 0.5, "b": 0.5}), "v": low_rank_of_all()[0]}
    edit = edit_of(steps)
    readers = {name: MemoryReader({"w": t, "v": t.flip(0), "u": t.flip(1)}) for name, t in models.items()}
    after = EditedReader(edit, readers)
    edited = {name: after.whole(name) for name in after.names()}
    assert [name for name in edited if not same_bits(edited[name], readers["a"].tensors[name])] == ["w", "v"]
    back = EditedReader(edit.undo(), {"edited": MemoryReader(edited), "original": readers["a"]})
    assert all(same_bits(back.whole(name), readers["a"].tensors[name]) for name in edited)
