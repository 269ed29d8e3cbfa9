"""What an edit cannot be applied to, and numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Operation, Ties
from polysafe.edits.reader import EditedReader
from polysafe.errors import EditError, MismatchError
from tests.edits.memory import MemoryReader, dare, edit_of, evaluate, family, low_rank_of_all, same_bits

COMPUTED: dict[str, Operation] = {
    "blend of two": Blend(weights={"a": 0.5, "b": 0.5}),
    "blend of three": Blend(weights={"a": 0.5, "b": 0.25, "c": 0.25}),
    "authors": Blend(weights={"a": 0.5, "b": 0.5}, arithmetic="authors"),
    "ties": Blend(weights={"a": 1, "b": 1}, rule=Ties(base="c", thresholds={"a": 0.1, "b": 0.1})),
    "dare": dare(0.99, base="c", experts="ab"),
    "delta": AddDelta(of="b", minus="c", scale=1.0),
    "stack": (Copy(source="b"), AddDelta(of="a", minus="c", scale=1.0)),  # type: ignore[dict-item]
}


@pytest.mark.fault(5, "NaN and infinity are traced to their tensor")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("case", COMPUTED)
def test_numbers_that_are_none_are_traced_to_their_source(case: str, bad: float) -> None:
    for position in (0, 57, 119):
        models = family()
        models["b"].view(-1)[position] = bad
        with pytest.raises(EditError, match=r"would be -?(nan|inf): 'b' holds NaN or infinity") as caught:
            evaluate(COMPUTED[case], models, step=5)
        assert caught.value.where == "w"
        row, column = divmod(position, 10) if case not in {"ties", "dare"} else (position // 10 // 5 * 5, 0)
        assert f"row {row}, column {column} of" in caught.value.problem


def test_a_broken_start_is_named_too() -> None:
    for operation in (AddDelta(of="b", minus="c", scale=1.0), low_rank_of_all()):
        models = family()
        models["a"][3, 3] = math.nan
        with pytest.raises(EditError, match="'a' holds NaN"):
            evaluate(operation, models)


def test_broken_numbers_elsewhere_do_no_harm() -> None:
    """What is not read for a tensor, and what is only copied, may hold anything."""
    models = family()
    models["d"][0, 0] = math.nan
    assert bool(evaluate(Blend(weights={"a": 0.5, "b": 0.5}), models).isfinite().all())
    assert math.isnan(float(evaluate(Copy(source="d"), models)[0, 0]))


@pytest.mark.fault(5, "huge numbers")
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
    told = r"row 0, column 0 .* would be 1[28]0000: F16 holds numbers up to 65504"
    with pytest.raises(EditError, match=told) as caught:
        evaluate(operation, models, dtype=dtype)
    assert caught.value.where == "w"
    assert "wider storage type" in str(caught.value.remedy)


@pytest.mark.fault(5, "huge numbers")
def test_largest_numbers_are_no_overflow() -> None:
    largest = torch.full((4, 4), 65504.0, dtype=torch.float16)
    assert same_bits(evaluate(Blend(weights={"a": 0.3, "b": 0.7}), {"a": largest, "b": largest}), largest)
    huge = torch.full((64, 64), 3e38)  # their sum is beyond float32, they are not
    assert same_bits(evaluate(Blend(weights={"a": 0.3, "b": 0.7}), {"a": huge, "b": huge}), huge)


@pytest.mark.hostile("edit")
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


@pytest.mark.hostile("edit")
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
