"""Tensors whose numbers look wrong, found while their blocks pass by: nothing is read for it.

Whoever copies such a tensor passes on what was broken before; it is told, by name. What is computed is held to more:
a result that is not finite is refused (`edits.reader`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from polysafe.checkpoint.dtypes import BITS, EDITABLE
from polysafe.checkpoint.header import TensorSpec

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

HUGE = 1e4
"""No weight of a trained matrix is as large; those of models in use stay below a few hundred."""
_SHOWN = 3


_NUMPY: dict[str, type[np.floating[Any]]] = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
"""The types that numpy has; bfloat16 is the first half of a float32, with its range."""


def read_floats(block: memoryview, dtype: str, out: NDArray[Any]) -> NDArray[Any]:
    """Numbers of a file in the type of `out`, in its first elements, which are returned.

    Args:
        block: Their bytes.
        dtype: Their type, one of `EDITABLE`.
        out: Where they go: float32, or float64 for numbers of that type.
    """
    if dtype != "BF16":
        codes = np.frombuffer(block, _NUMPY[dtype])
        out[: codes.size] = codes
        return out[: codes.size]
    halves = np.frombuffer(block, np.uint16)
    wide = out[: halves.size].view(np.uint32)
    wide[...] = halves
    np.left_shift(wide, 16, out=wide)
    return out[: halves.size]


def extremes(values: torch.Tensor) -> tuple[float, float]:
    """The least and the largest number; both NaN where one is NaN, and without a mask of the same size."""
    import torch

    if values.numel() == 0:
        return 0.0, 0.0
    low, high = torch.aminmax(values)
    return float(low), float(high)


def is_finite(values: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return all(map(math.isfinite, extremes(values)))


class Survey:
    """What blocks of tensors say of their tensors."""

    def __init__(self) -> None:
        self._largest: dict[str, int] = {}
        self._specs: dict[str, TensorSpec] = {}

    def seen(self, spec: TensorSpec, blocks: Iterable[memoryview]) -> Iterator[memoryview]:
        """The bytes of a tensor as they come, each block looked at before it is passed on."""
        if spec.dtype not in EDITABLE:
            yield from blocks
            return
        for block in blocks:
            self.add(spec, block)
            yield block

    def add(self, spec: TensorSpec, block: memoryview) -> None:
        """Looks at some of the bytes of a tensor of real numbers."""
        self._specs[spec.name] = spec
        self._largest[spec.name] = max(_largest(block, spec.dtype), self._largest.get(spec.name, 0))

    def findings(self) -> dict[str, tuple[str, ...]]:
        """What is wrong -> the tensors."""
        found: dict[str, list[str]] = {}
        for name, largest in self._largest.items():
            if (told := _told(self._specs[name], _number(largest, self._specs[name].dtype))) is not None:
                found.setdefault(told, []).append(name)
        return {told: tuple(names) for told, names in found.items()}

    def lines(self) -> Iterator[str]:
        """The same in words."""
        for told, names in self.findings().items():
            shown = ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
            yield f"{len(names)} tensor{'s' * (len(names) > 1)} {told}: {shown}"


def _largest(block: memoryview, dtype: str) -> int:
    """The code of the number that is farthest from 0, without its sign.

    Codes of floating-point numbers are ordered as their magnitudes, with infinity and NaN above all others, and the
    largest integer of a block is found many times as fast as the largest number.
    """
    if not block:
        return 0
    width = BITS[dtype]
    codes = np.frombuffer(block, f"i{width // 8}")
    return max(int(codes.max()), int(codes.view(f"u{width // 8}").max()) - (1 << (width - 1)), 0)


def _number(code: int, dtype: str) -> float:
    block = memoryview(code.to_bytes(BITS[dtype] // 8, "little"))
    return float(read_floats(block, dtype, np.empty(1, np.float64 if dtype == "F64" else np.float32))[0])


def _told(spec: TensorSpec, largest: float) -> str | None:
    if not math.isfinite(largest):
        return "with NaN or infinity"
    if len(spec.shape) < 2 or spec.numel == 0:
        return None  # a bias may be zero
    if largest == 0:
        return "of nothing but zeros"
    if largest < float(np.finfo(_NUMPY.get(spec.dtype, np.float32)).tiny):
        return "of nothing but denormal numbers"
    return f"with numbers above {HUGE:g}" if largest > HUGE else None
