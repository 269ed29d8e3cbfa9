"""What the operations of an edit are as numbers, for a block of rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.checkpoint.lora import AdaptedReader
from polysafe.checkpoint.reader import TensorReader
from polysafe.checkpoint.values import is_finite
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation

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


def applied(operation: Operation, block: Block, operand: Operand, start: str, storage: str | None) -> torch.Tensor:
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
