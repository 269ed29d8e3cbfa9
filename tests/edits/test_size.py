from __future__ import annotations

from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.source import open_checkpoint
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Operation
from polysafe.edits.size import StartShapes, weights_touched
from tests.models import trio

SOURCES = {name: SourceRecord(origin=name) for name in ("start", "other")}
LOW_RANK = AddLowRank(rows=torch.tensor([1, 4]), a=torch.ones(2, 1), b=torch.ones(6, 1))


def size(*operations: Operation, shape: tuple[int, int] = (10, 6)) -> int:
    edit = Edit(start="start", steps={"w": operations}, sources=SOURCES)
    return weights_touched(edit, StartShapes(tensors=3, weights=1000, shapes={"w": shape}))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (Copy(source="start"), 0),
        (Copy(source="other"), 60),
        (Blend(weights={"start": 0.5, "other": 0.5}), 60),
        (LOW_RANK, 12),
        (AddDelta(of="other", minus="start", scale=1.0), 60),
        (AddDelta(of="other", minus="start", scale=1.0, columns=((0, 2), (4, 5))), 30),
        (AddDelta(of="other", minus="start", scale=1.0, columns=((0, 2),), rows=((3, 7),)), 8),
    ],
)
def test_weights_that_an_operation_may_change(operation: Operation, expected: int) -> None:
    assert size(operation) == expected


def test_a_stack_never_changes_more_than_there_is() -> None:
    assert size(LOW_RANK, LOW_RANK) == 24
    assert size(Copy(source="other"), LOW_RANK) == 60


def test_shapes_come_from_the_header_and_come_back_from_json(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(trio(tmp_path).base)
    first, *_ = checkpoint.tensors
    edit = Edit(start="start", steps={first: (Copy(source="other"),)}, sources=SOURCES)
    shapes = StartShapes.of(edit, checkpoint)
    assert shapes.tensors == len(checkpoint.tensors)
    assert shapes.weights == sum(spec.numel for spec in checkpoint.tensors.values())
    assert list(shapes.shapes) == [first]
    assert weights_touched(edit, shapes) == checkpoint.tensors[first].numel
    assert StartShapes.model_validate_json(shapes.model_dump_json()) == shapes
