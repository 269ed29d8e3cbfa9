"""Evaluates an edit, a block of rows at a time.

`EditedReader` shows a checkpoint as it will be after an edit. Everything that writes, measures or stacks edited
models reads through it, so there is one place where operations become numbers (`arithmetic.py`, which needs torch; an
edit that is planned only does not).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from polysafe.checkpoint.dtypes import EDITABLE, torch_dtype
from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.reader import BLOCK_BYTES, COPY_BYTES, CheckpointReader, TensorReader
from polysafe.checkpoint.values import is_finite
from polysafe.edits.edit import Edit
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Operation
from polysafe.errors import EditError, MismatchError

if TYPE_CHECKING:
    import torch

    from polysafe.edits.arithmetic import Block


class EditedReader:
    """A `TensorReader` of the model that an edit makes.

    Args:
        edit: The edit.
        readers: A reader for each of its sources.

    Raises:
        MismatchError: A source lacks a tensor that the edit takes from it, or has it in another shape.
        EditError: An operation does not fit its tensor.
    """

    def __init__(self, edit: Edit, readers: Mapping[str, TensorReader]) -> None:
        self.edit = edit
        self._readers = {name: readers[name] for name in edit.sources if name in readers}
        self._start = readers[edit.start]
        _check_fit(edit, readers)

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, in the file order of the model that the edit starts from."""
        return self._start.names()

    def spec(self, name: str) -> TensorSpec:
        """Type and shape of a tensor of the result. Its file and offset are those of the original."""
        spec = self._start.spec(name)
        dtype = self.edit.dtype if self.edit.dtype and spec.dtype in EDITABLE else spec.dtype
        return spec if dtype == spec.dtype else replace(spec, dtype=dtype, nbytes=tensor_bytes(dtype, spec.shape))

    def block_bytes(self, name: str) -> int:
        """Size of the blocks in which a tensor should be read.

        A copy or a blend needs its block once, and a larger one means fewer turns; a rule holds several float64 copies
        of it.
        """
        steps = self.edit.steps.get(name, ())
        if any(isinstance(step, Blend) and step.rule is not None for step in steps):
            return BLOCK_BYTES // 2
        return COPY_BYTES if all(isinstance(step, Copy | Blend) for step in steps) else BLOCK_BYTES

    def copied_from(self, name: str) -> CheckpointReader | None:
        """The files that a tensor of the result has its bytes from; None where they have to be computed."""
        if not self._is_copied(name):
            return None
        steps = self.edit.steps.get(name, ())
        source = self._readers[steps[-1].sources[0]] if steps else self._start
        if not isinstance(source, CheckpointReader) or not source.is_stored(name):
            return None
        return source if source.spec(name).dtype == self.spec(name).dtype else None

    def whole(self, name: str) -> torch.Tensor:
        """The whole tensor of the result."""
        spec = self.spec(name)
        return self.rows(name, 0, spec.rows).reshape(spec.shape)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start:stop` of a tensor of the result, in its storage type.

        Raises:
            EditError: The computed result, and so perhaps one of the inputs, is not finite there.
        """
        from polysafe.edits.arithmetic import Block, Operand, applied

        block = Block(name, start, stop)
        dtype = self.spec(name).dtype
        operations = self.edit.steps.get(name, ())
        value = self._read(self.edit.start, block) if self.edit.start in self.edit.reads(name) else None
        for index, operation in enumerate(operations):
            storage = dtype if index == len(operations) - 1 else None
            operand = Operand(block, self._readers, self.edit.start, value, index == 0)
            value = applied(operation, block, operand, self.edit.start, storage)
        assert value is not None
        stored = value.to(torch_dtype(dtype))
        copied = stored is value and self._is_copied(name)
        if not copied and not is_finite(stored):
            raise self._not_finite(block, dtype, value, stored)
        return stored

    def _is_copied(self, name: str) -> bool:
        """Whether nothing is computed of a tensor, but for its storage type."""
        return all(isinstance(step, Copy) for step in self.edit.steps.get(name, ()))

    def _read(self, source: str, block: Block) -> torch.Tensor:
        return self._readers[source].rows(block.name, block.start, block.stop)

    def _not_finite(self, block: Block, dtype: str, value: torch.Tensor, stored: torch.Tensor) -> EditError:
        import torch

        row, column = map(int, (~stored.isfinite()).nonzero()[0])
        guilty = [source for source in self.edit.reads(block.name) if not is_finite(self._read(source, block))]
        if guilty:
            cause, remedy = f"{guilty[0]!r} holds NaN or infinity there", "it is broken; fetch or train it again"
        else:
            cause, remedy = (
                f"{dtype} holds numbers up to {torch.finfo(torch_dtype(dtype)).max:g}",
                "choose a wider storage type or smaller weights",
            )
        return EditError(
            f"row {block.start + row}, column {column} of the result would be {float(value[row, column]):g}: {cause}",
            where=block.name,
            remedy=remedy,
        )


def _check_fit(edit: Edit, readers: Mapping[str, TensorReader]) -> None:
    start = readers[edit.start]
    names = {source: frozenset(reader.names()) for source, reader in readers.items()}
    for tensor, operation in edit.operations():
        if tensor not in names[edit.start]:
            raise EditError(f"the edit changes {tensor!r}, which {edit.start!r} does not have")
        spec = start.spec(tensor)
        for source in operation.sources:
            if tensor not in names[source]:
                raise MismatchError(f"{source!r} has no such tensor", where=tensor)
            _check_same(source, readers[source].spec(tensor), edit.start, spec)
        _check_bounds(operation, tensor, spec)


def _check_same(source: str, spec: TensorSpec, start: str, wanted: TensorSpec) -> None:
    if spec.shape != wanted.shape:
        raise MismatchError(
            f"{source!r} has shape {list(spec.shape)}, {start!r} has {list(wanted.shape)}", where=wanted.name
        )
    if spec.dtype != wanted.dtype and not {spec.dtype, wanted.dtype} <= EDITABLE:
        raise MismatchError(f"{source!r} stores it as {spec.dtype}, {start!r} as {wanted.dtype}", where=wanted.name)


def _check_bounds(operation: Operation, tensor: str, spec: TensorSpec) -> None:
    if not isinstance(operation, Copy) and spec.dtype not in EDITABLE:
        raise EditError(f"is stored as {spec.dtype}, which can only be copied", where=tensor)
    if isinstance(operation, AddLowRank):
        last = int(operation.rows[-1]) if operation.rows.numel() else -1
        if last >= spec.rows or operation.b.shape[0] != spec.columns:
            raise EditError(
                f"the low-rank update (rows up to {last}, {operation.b.shape[0]} columns) does not fit "
                f"{spec.rows} rows × {spec.columns} columns",
                where=tensor,
            )
    if isinstance(operation, AddDelta):
        for name, ranges, size in (("column", operation.columns, spec.columns), ("row", operation.rows, spec.rows)):
            if ranges and ranges[-1][1] > size:
                raise EditError(f"{name} {ranges[-1][1] - 1} is beyond its {size} {name}s", where=tensor)
