from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from polysafe.files.strict import Strict


class Inner(Strict):
    gain: float = 0.0


class Outer(Strict):
    share: Annotated[float, Field(ge=0, le=1)] | dict[str, float] | None = None
    rows: tuple[Annotated[int, Field(ge=0)], ...] = ()
    either: int | float = 0
    force: bool = False
    inner: Inner | None = None
    more: tuple[Inner, ...] = ()


@pytest.mark.hostile("recipe")
@pytest.mark.parametrize(
    "given",
    [
        {"share": True},
        {"share": "0.3"},
        {"share": {"sw": True}},
        {"share": {"sw": "1"}},
        {"rows": [True]},
        {"rows": ["1"]},
        {"rows": [b"1"]},
        {"rows": [0.5]},
        {"either": True},
        {"either": "1"},
        {"force": 1},
        {"force": "false"},
        {"inner": {"gain": "1"}},
        {"more": [{"gain": False}]},
    ],
)
def test_nothing_else_is_taken_for_a_number_or_a_switch(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Outer.model_validate(given)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"share": 1}, {"share": 1.0}),
        ({"share": np.float64(0.5)}, {"share": 0.5}),
        ({"share": {"sw": 1}}, {"share": {"sw": 1.0}}),
        ({"rows": [3, 3.0, np.int64(3)]}, {"rows": (3, 3, 3)}),
        ({"either": 1}, {"either": 1}),
        ({"either": 1.0}, {"either": 1.0}),
        ({"inner": {"gain": 2}}, {"inner": {"gain": 2.0}}),
    ],
)
def test_numbers_stay_what_they_are(given: dict[str, Any], read: dict[str, Any]) -> None:
    found = Outer.model_validate(given).model_dump(exclude_unset=True)
    assert found == read
    assert repr(found) == repr(read)


def test_the_schema_for_editors_is_the_same() -> None:
    class Plain(Strict):
        rows: tuple[int, ...] = ()

    assert TypeAdapter(Plain).json_schema()["properties"]["rows"]["items"] == {"type": "integer"}
