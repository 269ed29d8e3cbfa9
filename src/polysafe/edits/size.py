"""How much of a model an edit may change, told from the header of the checkpoint that it starts from."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from polysafe.checkpoint.source import Checkpoint
from polysafe.edits.edit import Edit
from polysafe.edits.operations import AddDelta, AddLowRank, Copy, Operation


class StartShapes(BaseModel):
    """What the size of an edit is measured by; small enough to be kept beside the edit.

    Attributes:
        tensors: Number of tensors of the model.
        weights: Number of its weights.
        shapes: Tensor that the edit touches -> rows and columns of its two-dimensional view.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tensors: int
    weights: int
    shapes: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, edit: Edit, start: Checkpoint) -> Self:
        """Reads them from the headers of the model that the edit starts from."""
        specs = start.tensors
        return cls(
            tensors=len(specs),
            weights=sum(spec.numel for spec in specs.values()),
            shapes={name: (specs[name].rows, specs[name].columns) for name in edit.touched},
        )


def weights_touched(edit: Edit, start: StartShapes) -> int:
    """Number of weights that the operations of an edit may change.

    Where several operations change one tensor, each counts, up to the size of the tensor.
    """
    return sum(_in_tensor(edit, tensor, *start.shapes[tensor]) for tensor in edit.touched)


def _in_tensor(edit: Edit, tensor: str, rows: int, columns: int) -> int:
    return min(rows * columns, sum(_changed(operation, edit.start, rows, columns) for operation in edit.steps[tensor]))


def _changed(operation: Operation, start: str, rows: int, columns: int) -> int:
    match operation:
        case Copy(source=source) if source == start:
            return 0
        case AddLowRank(rows=chosen):
            return chosen.numel() * columns
        case AddDelta(rows=kept, columns=across):
            return _span(kept, rows) * _span(across, columns)
    return rows * columns


def _span(ranges: tuple[tuple[int, int], ...] | None, whole: int) -> int:
    return whole if ranges is None else sum(stop - first for first, stop in ranges)
