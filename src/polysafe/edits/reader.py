"""Evaluates an edit, a block of rows at a time.

`EditedReader` shows a checkpoint as it will be after an edit. Everything that writes, measures or stacks edited
models reads through it, so there is one place where operations become numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from polysafe.checkpoint.dtypes import EDITABLE, torch_dtype
from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.lora import AdaptedReader
from polysafe.checkpoint.reader import BLOCK_BYTES, COPY_BYTES, CheckpointReader, TensorReader
from polysafe.checkpoint.values import is_finite
from polysafe.edits.edit import Edit
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation
from polysafe.errors import EditError, MismatchError

_NO_SHARE = 1e-8
"""Smallest sum of shares that a merged task vector is divided by."""


@dataclass(frozen=True, slots=True)
class Block:
    """Rows `start:stop` of the two-dimensional view of a tensor."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Operand:
    """What an operation reads of one block. Where it names the start of the edit, that means the value so far.

    Attributes:
        block: The block.
        readers: A reader for each source.
        start: The model that the edit starts from.
        value: Its value so far, None where no operation builds on it.
        first: Whether the operation is the first of its tensor, so that the value so far is the start's own.
    """

    block: Block
    readers: Mapping[str, TensorReader]
    start: str
    value: torch.Tensor | None
    first: bool

    def __call__(self, source: str) -> torch.Tensor:
        """The block of a source, in that source's storage type."""
        if source == self.start and self.value is not None:
            return self.value
        return self.readers[source].rows(self.block.name, self.block.start, self.block.stop)

    def difference(self, of: str, minus: str) -> torch.Tensor:
        """W_of − W_minus in float64; of an adapter on `minus` its update itself, without the rounding of merging."""
        adapter, base = self.readers.get(of), self.readers.get(minus)
        if isinstance(adapter, AdaptedReader) and adapter.is_on(base) and (self.first or minus != self.start):
            return adapter.update(self.block.name, self.block.start, self.block.stop)
        return self(of).to(torch.float64) - self(minus).to(torch.float64)


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

        A copy needs its block once, and a larger one means fewer turns; a rule holds several float64 copies of it.
        """
        if self._is_copied(name):
            return COPY_BYTES
        ruled = any(isinstance(step, Blend) and step.rule is not None for step in self.edit.steps[name])
        return BLOCK_BYTES // 2 if ruled else BLOCK_BYTES

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
        block = Block(name, start, stop)
        dtype = self.spec(name).dtype
        operations = self.edit.steps.get(name, ())
        value = self._read(self.edit.start, block) if self.edit.start in self.edit.reads(name) else None
        for index, operation in enumerate(operations):
            storage = dtype if index == len(operations) - 1 else None
            operand = Operand(block, self._readers, self.edit.start, value, index == 0)
            value = _apply(operation, block, operand, self.edit.start, storage)
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


def _apply(operation: Operation, block: Block, operand: Operand, start: str, storage: str | None) -> torch.Tensor:
    """One operation on one block.

    `storage` is the type of the result if this is the last operation: then it may round to it in one pass. Otherwise
    the value is returned as wide as it was computed, so that a chain of operations rounds once.
    """
    match operation:
        case Copy(source=source):
            return operand(source)
        case Blend(arithmetic="authors"):
            return _authors_sum(operation.weights, operand)
        case Blend(rule=None):
            return _weighted_sum(operation.weights, operand, storage)
        case Blend():
            return _ruled_sum(operation, block, operand)
        case AddDelta():
            return _add_delta(operation, block, operand(start), operand)
        case AddLowRank():
            return _add_low_rank(operation, operand(start), block)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the type that arithmetic on it is done in: float32 for 16-bit storage, else float64."""
    return tensor.to(torch.float32 if tensor.dtype.itemsize <= 2 else torch.float64, copy=True)


def _authors_sum(weights: Mapping[str, float], operand: Operand) -> torch.Tensor:
    """Every product and every sum rounds to bfloat16, as when tensors of that type are mixed in torch."""
    terms = [weight * operand(source).to(torch.bfloat16) for source, weight in weights.items()]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _weighted_sum(weights: Mapping[str, float], operand: Operand, storage: str | None) -> torch.Tensor:
    """Σ w·x, in an order that depends on the weights: the order in a recipe cannot change a bit of the result.

    Of two models in a mean, the heavier one comes last: `lerp` then steps back from it and keeps the sign of a zero.
    """
    names = sorted(weights, key=lambda name: (weights[name], name))
    if len(names) == 2 and weights[names[0]] >= 0 and math.isclose(sum(weights.values()), 1.0, abs_tol=1e-12):
        first, second = operand(names[0]), operand(names[1])
        one_pass = storage is not None and first.dtype == second.dtype == torch_dtype(storage)
        if not (one_pass and first.dtype.itemsize <= 2):  # lerp computes 16-bit types in float32, rounding once
            width = torch.promote_types(_wide(first).dtype, _wide(second).dtype)
            first, second = first.to(width), second.to(width)
        return torch.lerp(first, second, weights[names[1]], out=first)  # a fresh result costs more than the sum
    total = weights[names[0]] * operand(names[0]).to(torch.float64)
    for name in names[1:]:
        total += weights[name] * operand(name).to(torch.float64)
    return total


def _ruled_sum(operation: Blend, block: Block, operand: Operand) -> torch.Tensor:
    """W_base + Σ λ_E·τ̃_E in float64, where differences of stored numbers are exact.

    In place and without masks: filling a fresh block or picking elements by a mask costs more than all sums together.
    """
    rule, names = operation.rule, sorted(operation.weights)
    assert rule is not None
    base = operand(rule.base).to(torch.float64)
    deltas = torch.empty((len(names), *base.shape), dtype=torch.float64)
    for name, delta in zip(names, deltas, strict=True):
        delta.copy_(operand(name)).sub_(base)
    if not is_finite(deltas):
        return torch.full_like(base, math.nan)  # dropping and trimming would hide it
    if isinstance(rule, Dare):
        for name, delta in zip(names, deltas, strict=True):
            _drop(delta, rule, name, block)
        rule = rule.then
    for name, delta in zip(names, deltas, strict=True):
        if rule is not None and (threshold := rule.thresholds[name]) > 0:  # what is not above the number before it
            delta.copy_(torch.nn.functional.hardshrink(delta, math.nextafter(threshold, 0.0)))
        delta.mul_(operation.weights[name])
    if rule is None:
        return _plus(base, _sum(deltas))
    shares = None if rule.shares is None else [rule.shares.get(name, 0.0) for name in names]
    return _plus(base, _elected_mean(deltas, shares))


def _plus(value: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """The sum; where the update is zero, every bit of the value stays.

    −0 + 0 would be +0, while −0 − 0 is −0: 0 − u is +0 for either zero, and subtracting −u is adding u.
    """
    return value - torch.rsub(update, 0.0)


def _sum(deltas: torch.Tensor) -> torch.Tensor:
    """One after the other, into the first: `sum` takes many of them in another order, which rounds differently."""
    for delta in deltas[1:]:
        deltas[0].add_(delta)
    return deltas[0]


def _elected_mean(deltas: torch.Tensor, shares: Sequence[float] | None) -> torch.Tensor:
    """TIES' second and third step on task vectors of shape [experts, rows, columns], which are used up.

    Times the elected sign, what agrees is positive and everything else is not. With `shares` a sum of zero elects plus,
    and the agreeing entries are divided by the sum of theirs; where that is zero, as without any, by nothing.
    """
    elected = deltas.sum(0).sign_()
    if shares is not None:
        elected.masked_fill_(elected == 0, 1.0)
    agreeing = deltas.mul_(elected).clamp_min_(0)
    total = agreeing.sum(0)
    if shares is None:
        divisor = agreeing.sign_().sum(0).clamp_min_(1)
    else:
        divisor = torch.zeros_like(total)
        for share, agrees in zip(shares, agreeing.sign_(), strict=True):
            divisor.add_(agrees, alpha=share)
        divisor.masked_fill_(divisor.abs() < _NO_SHARE, 1.0)
    return total.div_(divisor).mul_(elected)


def _drop(delta: torch.Tensor, rule: Dare, source: str, block: Block) -> None:
    """DARE's mask for a block: word i of the generator belongs to element i of the tensor, wherever blocks end."""
    first = block.start * delta.shape[1]
    key = hashlib.sha256(f"{rule.seed}\0{source}\0{block.name}".encode()).digest()[:16]
    generator = np.random.Philox(counter=first // 4, key=int.from_bytes(key, "little"))
    words = generator.random_raw(first % 4 + delta.numel())[first % 4 :]
    drop = rule.drop_of(source)
    kept = torch.from_numpy(words >= np.uint64(int(drop * 2.0**64))).view(delta.shape)
    delta.mul_(kept.view(torch.uint8).to(torch.float64)).div_(1.0 - drop)


def _add_delta(operation: AddDelta, block: Block, current: torch.Tensor, operand: Operand) -> torch.Tensor:
    """In float64, where differences of stored numbers are exact, so that W + (W_of − W) is W_of."""
    result = current.to(torch.float64, copy=True)
    rows = _inside(operation.rows, block)
    if not rows:
        return result
    update = operand.difference(operation.of, operation.minus)
    for first, last in rows:
        for start, stop in operation.columns if operation.columns is not None else ((0, result.shape[1]),):
            part = result[first:last, start:stop]
            part.copy_(_plus(part, operation.scale * update[first:last, start:stop]))
    return result


def _inside(ranges: tuple[tuple[int, int], ...] | None, block: Block) -> list[tuple[int, int]]:
    """The parts of row ranges that lie in a block, counted from its first row."""
    size = block.stop - block.start
    if ranges is None:
        return [(0, size)]
    cut = [(max(a - block.start, 0), min(b - block.start, size)) for a, b in ranges]
    return [(a, b) for a, b in cut if a < b]


def _add_low_rank(operation: AddLowRank, current: torch.Tensor, block: Block) -> torch.Tensor:
    result = _wide(current)
    inside = (operation.rows >= block.start) & (operation.rows < block.stop)
    update = operation.a[inside].to(torch.float64) @ operation.b.to(torch.float64).T
    rows = operation.rows[inside] - block.start
    result[rows] = _plus(result[rows], update.to(result.dtype))
    return result


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
