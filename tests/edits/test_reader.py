from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation, Ties, blend
from polysafe.edits.reader import EditedReader
from tests.edits.memory import (
    ALPHAS,
    FLOATS,
    MemoryReader,
    edit_of,
    evaluate,
    every_finite,
    family,
    low_rank_of_all,
    low_ranks,
    operations,
    random,
    ranges,
    rounded_once,
    same_bits,
)


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


@pytest.mark.fault(17, "weights of zero and one")
@pytest.mark.parametrize("dtype", FLOATS)
def test_weights_of_zero_and_one_reproduce_the_inputs(dtype: torch.dtype) -> None:
    models = family(dtype)
    assert same_bits(evaluate(blend({"a": 0.0, "b": 1.0}), models), models["b"])
    assert same_bits(evaluate(blend({"a": 1.0, "b": 0.0}), models), models["a"])
    assert same_bits(evaluate(Blend(weights={"b": 1.0}), models), models["b"])
    assert same_bits(evaluate(Copy(source="c"), models), models["c"])


@pytest.mark.fault(17, "strength zero")
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


@pytest.mark.fault(17, "swapping twice")
def test_swapping_twice_restores() -> None:
    models = family()
    swapped = evaluate(Copy(source="b"), models)
    assert same_bits(evaluate(Copy(source="b"), {"a": swapped, "b": models["a"]}), models["a"])


@pytest.mark.fault(5, "denormal numbers")
@pytest.mark.parametrize("operation", [Copy(source="b"), Copy(source="a"), ()])
def test_copies_are_byte_for_byte_whatever_the_bytes_are(operation: Operation | tuple[()]) -> None:
    """NaN with a payload, infinities, subnormals."""
    every = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16)).view(torch.bfloat16)
    assert same_bits(evaluate(operation, {"a": every, "b": every.clone()}), every)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float8_e4m3fn, torch.complex64])
def test_other_types_are_copied(dtype: torch.dtype) -> None:
    a, b = (torch.arange(6).view(2, 3) + i for i in range(2))
    assert same_bits(evaluate(Copy(source="b"), {"a": a.to(dtype), "b": b.to(dtype)}), b.to(dtype))


@pytest.mark.fault(17, "blocks and threads")
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


@pytest.mark.fault(17, "blocks and threads")
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


@given(st.floats(-3, 3), st.one_of(st.none(), ranges(12)), ranges(10), st.sampled_from([None, 1, 5]))
def test_delta_equals_the_dense_one_and_stays_in_its_rows_and_columns(
    scale: float, rows: tuple[tuple[int, int], ...] | None, columns: tuple[tuple[int, int], ...], step: int | None
) -> None:
    inside = torch.zeros(12, 10, dtype=torch.bool)
    for first, last in ((0, 12),) if rows is None else rows:
        for start, stop in columns:
            inside[first:last, start:stop] = True
    for dtype in FLOATS[:3]:
        models = family(dtype)
        result = evaluate(AddDelta(of="b", minus="c", scale=scale, columns=columns, rows=rows), models, step=step)
        dense = models["a"].double()
        dense[inside] += scale * (models["b"].double() - models["c"].double())[inside]
        assert same_bits(result[~inside], models["a"][~inside])
        assert rounded_once(result, dense, *models.values())


def test_delta_of_the_value_so_far() -> None:
    models = family(torch.float32)
    result = evaluate(AddDelta(of="a", minus="b", scale=1.0), models)
    assert torch.equal(result, (2 * models["a"].double() - models["b"].double()).float())


def test_view_of_the_result() -> None:
    readers = {name: MemoryReader({"w": torch.zeros(2, 3), "v": torch.zeros(1)}) for name in "abcd"}
    reader = EditedReader(edit_of({}, dtype="BF16"), readers)
    assert reader.names() == ("w", "v")
    assert (reader.spec("w").dtype, reader.spec("w").nbytes, reader.spec("w").shape) == ("BF16", 12, (2, 3))
    assert reader.spec("w").file == Path("memory")


def test_undo_restores_every_bit() -> None:
    models = family()
    steps: dict[str, Operation] = {"w": Blend(weights={"a": 0.5, "b": 0.5}), "v": low_rank_of_all()}
    edit = edit_of(steps)
    readers = {name: MemoryReader({"w": t, "v": t.flip(0), "u": t.flip(1)}) for name, t in models.items()}
    after = EditedReader(edit, readers)
    edited = {name: after.whole(name) for name in after.names()}
    assert [name for name in edited if not same_bits(edited[name], readers["a"].tensors[name])] == ["w", "v"]
    back = EditedReader(edit.undo(), {"edited": MemoryReader(edited), "original": readers["a"]})
    assert all(same_bits(back.whole(name), readers["a"].tensors[name]) for name in edited)
