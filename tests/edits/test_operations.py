from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Ties, blend
from polysafe.errors import EditError


def low_rank(**changed: torch.Tensor) -> AddLowRank:
    sound: dict[str, Any] = {"rows": torch.tensor([1, 3]), "a": torch.zeros(2, 4), "b": torch.zeros(6, 4)}
    return AddLowRank(**(sound | changed))


def test_blend_is_as_plain_as_it_can_be() -> None:
    assert blend({"a": 0.3, "b": 0.7}) == Blend(weights={"a": 0.3, "b": 0.7})
    assert blend({"a": 0.0, "b": 1.0}) == blend({"b": 1}) == Copy(source="b")
    assert blend({"a": -0.0, "b": 0.5}) == Blend(weights={"b": 0.5})
    with pytest.raises(EditError, match="not zero"):
        blend({"a": 0.0})
    with pytest.raises(EditError, match="not zero"):
        blend({})


def test_sources_in_order_and_once() -> None:
    assert Copy(source="a").sources == ("a",)
    assert Blend(weights={"b": 1, "a": 1}).sources == ("b", "a")
    assert Blend(weights={"b": 1}, rule=Dare(base="a", drop=0, seed=0)).sources == ("a", "b")
    assert AddDelta(of="a", minus="b", scale=1).sources == ("a", "b")
    assert low_rank().sources == ()


@pytest.mark.hostile("edit")
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_must_be_finite(number: float) -> None:
    for make in (
        lambda: Blend(weights={"a": number}),
        lambda: Blend(weights={"a": 1}, rule=Ties(base="a", thresholds={"a": number})),
        lambda: AddDelta(of="a", minus="b", scale=number),
        lambda: low_rank(a=torch.full((2, 4), number)),
        lambda: low_rank(b=torch.full((6, 4), number)),
    ):
        with pytest.raises(ValidationError, match="finite"):
            make()


@pytest.mark.parametrize(
    ("rule", "arithmetic", "words"),
    [
        (Ties(base="a", thresholds={}), "float32", "must be of the same models"),
        (Ties(base="a", thresholds={"b": 0, "c": 0}), "float32", "must be of the same models"),
        (Dare(base="a", drop=0, seed=0, then=Ties(base="a", thresholds={})), "float32", "must be of the same models"),
        (Dare(base="a", drop=0, seed=0), "authors", "no published bfloat16 form"),
        (Dare(base="b", drop=0, seed=0), "float32", "the base of a rule has no task vector"),
    ],
)
def test_rules_fit_their_blend(rule: Any, arithmetic: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Blend(weights={"b": 1}, rule=rule, arithmetic=arithmetic)


@pytest.mark.parametrize(
    "changed", [{"drop": -0.1}, {"drop": 1.0}, {"seed": -1}, {"seed": 2**63}, {"seed": 0.5}, {"base": None}]
)
def test_dare_bounds(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Dare(**({"base": "a", "drop": 0.5, "seed": 1} | changed))


def test_a_blend_needs_a_source() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        Blend(weights={})


@pytest.mark.hostile("edit")
@pytest.mark.parametrize("columns", [((1, 1),), ((2, 1),), ((-1, 1),), ((0, 2), (1, 3)), ((2, 3), (0, 1))])
def test_columns_are_ascending_ranges(columns: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValidationError, match="ascending, disjoint"):
        AddDelta(of="a", minus="b", scale=1, columns=columns)


@pytest.mark.hostile("edit")
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rows": torch.tensor([3, 1])}, "ascending and distinct"),
        ({"rows": torch.tensor([1, 1])}, "ascending and distinct"),
        ({"rows": torch.tensor([-1, 1])}, "ascending and distinct"),
        ({"rows": torch.tensor([1.0, 3.0])}, "int64"),
        ({"rows": torch.tensor([1, 3], dtype=torch.int32)}, "int64"),
        ({"rows": torch.tensor([[1, 3]])}, "int64"),
        ({"rows": torch.tensor([1])}, "do not fit together"),
        ({"a": torch.zeros(2)}, "matrices"),
        ({"a": torch.zeros(2, 5)}, "do not fit together"),
        ({"a": torch.zeros(3, 4)}, "do not fit together"),
        ({"b": torch.zeros(6, 4, 1)}, "matrices"),
    ],
)
def test_factors_must_fit(changed: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        low_rank(**changed)


def test_equality_looks_into_factors() -> None:
    assert low_rank() == low_rank()
    assert low_rank() != low_rank(a=torch.ones(2, 4))
    assert low_rank() != low_rank(a=torch.zeros(2, 4, dtype=torch.float64))
    assert low_rank() != Copy(source="a")


def test_operations_are_values() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Copy(source="a").source = "b"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Copy(source="a", target="b")  # type: ignore[call-arg]
