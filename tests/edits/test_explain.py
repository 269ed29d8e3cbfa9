from __future__ import annotations

import json

import pytest
import torch

from polysafe.edits.edit import Decision, Provenance
from polysafe.edits.explain import describe, explain
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation, Ties
from tests.edits.memory import edit_of

LOW_RANK = AddLowRank(rows=torch.tensor([0, 5]), a=torch.ones(2, 3), b=torch.ones(4, 3))


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ((), "copy of a"),
        ((Copy(source="b"),), "copy of b"),
        ((Blend(weights={"a": 0.25, "b": 0.75}),), "0.25·a + 0.75·b"),
        ((Blend(weights={"b": 1}, rule=Ties(base="a", thresholds={"b": 0})),), "TIES of b"),
        ((Blend(weights={"b": 1, "c": 1}, rule=Dare(base="a", drop=0.5, seed=1)),), "DARE of b, c"),
        ((AddDelta(of="b", minus="a", scale=-0.5, columns=((0, 4), (8, 9))),), "-0.5·(b − a) on 5 columns"),
        ((AddDelta(of="b", minus="a", scale=2),), "2·(b − a) on all columns"),
        (
            (AddDelta(of="b", minus="a", scale=1, rows=((0, 2),), columns=((0, 4),)),),
            "1·(b − a) on 2 rows and 4 columns",
        ),
        ((LOW_RANK,), "rank-3 update of 2 rows"),
        ((Copy(source="b"), LOW_RANK), "copy of b, then rank-3 update of 2 rows"),
    ],
)
def test_words_for_what_happens_to_a_tensor(operations: tuple[Operation, ...], words: str) -> None:
    assert describe(operations, "a") == words


def test_explanation_is_plain_data() -> None:
    part = Provenance(
        method="layer_swap.v1",
        label="layer_swap.layer",
        options={"tau": 0.001},
        decisions=(Decision(block="layers.0", layer=0, choice="safety", safety_weight=1.0, score=0.2),),
        notes=("n",),
        warnings=("w",),
    )
    edit = edit_of({"v": Copy(source="b"), "w": Copy(source="b"), "x": LOW_RANK, "y": Copy(source="a")})
    told = explain(edit.model_copy(update={"provenance": (part,)}))
    assert json.loads(json.dumps(told)) == told
    assert told["tensors_touched"] == 3
    assert told["operations"] == {"copy of b": 2, "rank-3 update of 2 rows": 1, "copy of a": 1}
    assert (told["start"], told["dtype"]) == ("a", None)
    assert told["bytes"] > 0
    assert told["sources"]["b"] == {"origin": "origin of b", "files": {}}
    assert told["methods"][0]["decisions"][0]["choice"] == "safety"
    assert told["methods"][0]["warnings"] == ["w"]


@pytest.mark.hostile("edit")
@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (Blend(weights={"a": 1, "b": -1e9}), "weight -1e+09 of b"),
        (AddDelta(of="b", minus="a", scale=1e308), "scale 1e+308"),
        (LOW_RANK.model_copy(update={"a": torch.full((2, 3), 1e30)}), "an update as large as 8.48528e+30"),
    ],
)
def test_implausible_numbers_are_named(operation: Operation, told: str) -> None:
    assert explain(edit_of({"w": (Copy(source="b"), operation)}))["implausible"] == [f"w: {told}"]


def test_plausible_numbers_are_not() -> None:
    sound = (Blend(weights={"a": -0.5, "b": 1.5}), AddDelta(of="b", minus="a", scale=-20), LOW_RANK)
    assert "implausible" not in explain(edit_of({"w": sound}))
