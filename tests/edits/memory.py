"""Checkpoints in memory, and random operations on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st

from polysafe.checkpoint.dtypes import BITS, torch_dtype
from polysafe.checkpoint.header import TensorSpec
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Dare, Operation, Ties
from polysafe.edits.reader import EditedReader

CODES = {torch_dtype(code): code for code in BITS if BITS[code] >= 8}
FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
ALPHAS = [0.001, 0.1, 0.25, 0.3, 1 / 3, 0.49999, 0.5, 0.7, 0.9, 0.999]
State = dict[str, torch.Tensor]


class MemoryReader:
    """A `TensorReader` over tensors. Every read gives a fresh copy, as a file does."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.tensors = dict(tensors)
        self.read: list[str] = []

    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def spec(self, name: str) -> TensorSpec:
        tensor = self.tensors[name]
        return TensorSpec(name, CODES[tensor.dtype], tuple(tensor.shape), Path("memory"), 0, tensor.nbytes)

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        self.read.append(name)
        spec = self.spec(name)
        return self.tensors[name].reshape(spec.rows, spec.columns)[start:stop].clone()

    def whole(self, name: str) -> torch.Tensor:
        return self.tensors[name].clone()


def edit_of(
    steps: Mapping[str, tuple[Operation, ...] | Operation],
    start: str = "a",
    sources: str = "abcd",
    dtype: str | None = None,
) -> Edit:
    return Edit(
        start=start,
        steps={name: ops if isinstance(ops, tuple) else (ops,) for name, ops in steps.items()},
        sources={name: SourceRecord(origin=f"origin of {name}") for name in sources},
        dtype=dtype,
    )


def evaluate(
    operation: Operation | tuple[Operation, ...],
    sources: Mapping[str, torch.Tensor],
    *,
    start: str = "a",
    dtype: str | None = None,
    step: int | None = None,
) -> torch.Tensor:
    """The tensor `w` after an operation, read in blocks of `step` rows."""
    edit = edit_of({"w": operation}, start, "".join(sources), dtype)
    reader = EditedReader(edit, {name: MemoryReader({"w": tensor}) for name, tensor in sources.items()})
    if step is None:
        return reader.whole("w")
    rows = reader.spec("w").rows
    parts = [reader.rows("w", i, min(i + step, rows)) for i in range(0, rows, step)]
    return torch.cat(parts).reshape(sources[start].shape)


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equality that tells −0 from 0."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def random(
    seed: int, shape: tuple[int, ...] = (12, 10), dtype: torch.dtype = torch.bfloat16, *, size: float = 1.0
) -> torch.Tensor:
    """Normal numbers, among them zeros of both signs."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * size
    values[torch.rand(shape, generator=generator) < 0.1] = -0.0
    values[torch.rand(shape, generator=generator) < 0.1] = 0.0
    return values.to(dtype)


def family(dtype: torch.dtype = torch.bfloat16, shape: tuple[int, ...] = (12, 10)) -> State:
    """Four related models of one tensor: half of the elements are the same in all of them."""
    base = random(0, shape, dtype)
    moved = {n: random(i, shape, torch.float64, size=0.1) for i, n in enumerate("bcd", start=1)}
    moves = torch.rand(shape, generator=torch.Generator().manual_seed(9)) < 0.5
    return {"a": base} | {n: torch.where(moves, (base.double() + m).to(dtype), base) for n, m in moved.items()}


def every_finite(dtype: torch.dtype) -> torch.Tensor:
    """Every finite 16-bit number, subnormals and both zeros among them."""
    patterns = torch.from_numpy(np.arange(2**16, dtype=np.uint16).view(np.int16)).view(dtype)
    return patterns[patterns.isfinite()]


def rounded_once(result: torch.Tensor, exact: torch.Tensor, *terms: torch.Tensor) -> bool:
    """Whether the error is that of one rounding to storage, beside that of arithmetic on `terms` in a wide type."""
    above = torch.nextafter(result.abs(), torch.full_like(result, math.inf)).double()
    storage = (above - result.abs().double()) / 2
    largest = torch.stack([term.double().abs() for term in (exact, *terms)]).amax(0)
    wide = 2.0**-22 if all(t.dtype.itemsize == 2 for t in (result, *terms)) else 2.0**-50
    return bool(((result.double() - exact).abs() <= storage + wide * largest).all())


def dare(
    drop: float, *, seed: int = 0, base: str = "a", experts: str = "b", then: Ties | None = None, scale: float = 1.0
) -> Blend:
    return Blend(weights=dict.fromkeys(experts, scale), rule=Dare(base=base, drop=drop, seed=seed, then=then))


def low_rank_of_all() -> AddLowRank:
    """A change of rank one in every row."""
    return AddLowRank(rows=torch.arange(12), a=torch.ones(12, 1), b=torch.ones(10, 1))


SOURCES = st.sampled_from("abcd")
WEIGHTS = st.floats(-2, 2, allow_subnormal=False)


@st.composite
def blends(draw: st.DrawFn) -> Blend:
    base = draw(SOURCES)
    weights = draw(st.dictionaries(SOURCES.filter(lambda name: name != base), WEIGHTS, min_size=1))
    shares = draw(st.sampled_from([None, {}, dict.fromkeys(weights, 0.5)]))
    ties = Ties(base=base, thresholds={name: draw(st.floats(0, 0.2)) for name in weights}, shares=shares)
    then = draw(st.sampled_from([None, ties]))
    dare = Dare(base=base, drop=draw(st.floats(0, 0.9)), seed=draw(st.integers(0, 2**63 - 1)), then=then)
    rule = draw(st.sampled_from([None, ties, dare]))
    return Blend(weights=weights, rule=rule, arithmetic="float32" if rule else draw(arithmetics()))


def arithmetics() -> st.SearchStrategy[str]:
    return st.sampled_from(["float32", "authors"])


@st.composite
def ranges(draw: st.DrawFn, size: int) -> tuple[tuple[int, int], ...]:
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
    return tuple(zip(edges[::2], edges[1::2], strict=False))


@st.composite
def low_ranks(draw: st.DrawFn, rows: int = 12, columns: int = 10) -> AddLowRank:
    chosen = sorted(draw(st.sets(st.integers(0, rows - 1), max_size=rows)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    rank = draw(st.integers(0, 3))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    factors = [torch.randn(n, rank, generator=generator).to(dtype) for n in (len(chosen), columns)]
    return AddLowRank(rows=torch.tensor(chosen, dtype=torch.int64), a=factors[0], b=factors[1])


def deltas() -> st.SearchStrategy[AddDelta]:
    columns, rows = st.none() | ranges(10), st.none() | ranges(12).filter(bool)  # without rows nothing is read
    return st.builds(AddDelta, of=SOURCES, minus=SOURCES, scale=WEIGHTS, columns=columns, rows=rows)


def operations() -> st.SearchStrategy[Operation]:
    return st.one_of(st.builds(Copy, source=SOURCES), blends(), deltas(), low_ranks())
