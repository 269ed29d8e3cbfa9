"""What an edit adds to a tensor: as a product of two thin matrices where the operations keep it one, else densely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from polysafe.checkpoint.lora import AdaptedCheckpoint, AdaptedReader
from polysafe.checkpoint.reader import TensorReader, row_blocks
from polysafe.checkpoint.source import Checkpoint
from polysafe.edits.edit import Edit
from polysafe.edits.low_rank import LowRank
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Operation
from polysafe.edits.reader import EditedReader

_WIDE = "F64"


@dataclass(frozen=True, slots=True)
class _Offset:
    """A tensor of a model as that of a full checkpoint plus an update of low rank."""

    root: Path
    update: LowRank


class Updates:
    """What an edit adds to the tensors of the model it starts from.

    Args:
        edit: The edit.
        checkpoints: Its sources; that of the start is a full checkpoint.
        readers: A reader for each of them.

    Raises:
        MismatchError: A source lacks a tensor that the edit takes from it, or has it in another shape.
        EditError: An operation does not fit its tensor.
    """

    def __init__(self, edit: Edit, checkpoints: Mapping[str, Checkpoint], readers: Mapping[str, TensorReader]) -> None:
        self._edit = edit
        self._checkpoints = checkpoints
        self._readers = readers
        self._start = readers[edit.start]
        # Without the rounding to a storage type: what is added to the weights need not fit between two of its steps.
        self._edited = EditedReader(edit.model_copy(update={"dtype": _WIDE}), readers)

    def factors(self, tensor: str) -> LowRank | None:
        """The update of a tensor's two-dimensional view where it is of low rank by construction, else None.

        It is where every operation adds factors, or leads from one model to another that differ by LoRA adapters of
        the same base: masked differences of these are updates of low rank again.
        """
        spec = self._start.spec(tensor)
        current: LowRank | None = LowRank.zero(spec.rows, spec.columns)
        for operation in self._edit.steps.get(tensor, ()):
            current = self._after(operation, tensor, current)
        return None if current is None else current.pruned()

    def dense(self, tensor: str) -> torch.Tensor:
        """The update of a tensor's two-dimensional view, shape [rows, columns], in float32."""
        spec = self._start.spec(tensor)
        columns = _columns(self._edit.steps.get(tensor, ()), spec.columns)
        result = torch.zeros(spec.rows, spec.columns)
        for start, stop in row_blocks(spec):
            result[start:stop, columns] = self._block(tensor, start, stop)[:, columns].to(torch.float32)
        return result

    def norm(self, tensor: str) -> float:
        """Frobenius norm of the update of a tensor of any kind; exactly zero only if nothing changes."""
        spec = self._start.spec(tensor)
        squares = (float(self._block(tensor, *rows).square().sum()) for rows in row_blocks(spec))
        return math.sqrt(sum(squares))

    def _block(self, tensor: str, start: int, stop: int) -> torch.Tensor:
        after, before = self._edited.rows(tensor, start, stop), self._start.rows(tensor, start, stop)
        return after.to(torch.float64) - before.to(torch.float64)

    def _after(self, operation: Operation, tensor: str, current: LowRank | None) -> LowRank | None:
        """The update after one more operation; None where it is no longer known to be of low rank."""
        match operation:
            case AddLowRank():
                return None if current is None else current + self._rows(operation, tensor)
            case Copy(source=source):
                return self._sum({source: 1.0}, tensor, current)
            case Blend(rule=None, arithmetic="float32", weights=weights):
                return self._sum(weights, tensor, current)
            case AddDelta():
                return self._moved(operation, tensor, current)
        return None

    def _rows(self, operation: AddLowRank, tensor: str) -> LowRank:
        left = torch.zeros(self._start.spec(tensor).rows, operation.a.shape[1], dtype=torch.float64)
        left[operation.rows] = operation.a.to(torch.float64)
        return LowRank(left, operation.b.to(torch.float64).mT)

    def _sum(self, weights: Mapping[str, float], tensor: str, current: LowRank | None) -> LowRank | None:
        """A weighted mean of models that all are adapters of the start, or the start itself."""
        offsets = [self._offset(source, tensor, current) for source in weights]
        root = self._checkpoints[self._edit.start].root
        if not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-12):
            return None
        total = LowRank.zero(*_shape(self._start, tensor))
        for offset, weight in zip(offsets, weights.values(), strict=True):
            if offset is None or offset.root != root:
                return None
            total += offset.update.times(weight)
        return total

    def _moved(self, operation: AddDelta, tensor: str, current: LowRank | None) -> LowRank | None:
        of, minus = (self._offset(name, tensor, current) for name in (operation.of, operation.minus))
        if current is None or of is None or minus is None or of.root != minus.root:
            return None
        if operation.of == operation.minus:
            return current
        # Where the operation names the start it means the value so far, whose update is scaled and not repeated.
        signs = {operation.of: operation.scale, operation.minus: -operation.scale}
        columns, rows, start = operation.columns, operation.rows, self._edit.start
        if rows is None:  # keeps the rank
            result = current.with_columns_times(1 + signs.get(start, 0.0), columns)
        else:
            result = current + current.on_columns(columns).on_rows(rows).times(signs.get(start, 0.0))
        for name, offset in ((operation.of, of), (operation.minus, minus)):
            if name != start:
                result += offset.update.times(signs[name]).on_columns(columns).on_rows(rows)
        return result

    def _offset(self, source: str, tensor: str, current: LowRank | None) -> _Offset | None:
        """How a source differs from a full checkpoint; an adapted one has the folder of its base as its root."""
        checkpoint, reader = self._checkpoints[source], self._readers[source]
        if source == self._edit.start:
            return None if current is None else _Offset(checkpoint.root, current)
        update = LowRank.zero(*_shape(self._start, tensor))
        scales = checkpoint.scales if isinstance(checkpoint, AdaptedCheckpoint) else {}
        if tensor in scales and isinstance(reader, AdaptedReader):
            a, b = reader.factors(tensor)
            update = LowRank(scales[tensor] * b, a)
        return _Offset(checkpoint.root, update)


def _shape(reader: TensorReader, tensor: str) -> tuple[int, int]:
    spec = reader.spec(tensor)
    return spec.rows, spec.columns


def _columns(operations: tuple[Operation, ...], count: int) -> torch.Tensor:
    """Indices of the columns that can change; the others need not be computed."""
    if not all(isinstance(operation, AddDelta) and operation.columns is not None for operation in operations):
        return torch.arange(count)
    mask = torch.zeros(count, dtype=torch.bool)
    for operation in operations:
        assert isinstance(operation, AddDelta)
        for start, stop in operation.columns or ():
            mask[start:stop] = True
    return mask.nonzero().squeeze(1)
