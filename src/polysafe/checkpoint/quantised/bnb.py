"""Numbers of checkpoints that bitsandbytes quantised, as that library computes them.

Four bits: `X.weight` holds two codes a byte, with `absmax`, tables and a `quant_state` beside it. Eight bits: a code a
byte, with the largest number of every row in `X.SCB`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.quantised.ordinary import Ordinary
from polysafe.checkpoint.reader import row_blocks

if TYPE_CHECKING:
    import torch

_STATE = ".quant_state.bitsandbytes__"
_TABLES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_ROW, _LAYOUT = "SCB", "weight_format"
_LARGEST_STATE = 1 << 16


class BitsAndBytes(Ordinary):
    """A checkpoint of bitsandbytes with ordinary numbers. What it is made with and raises: `Ordinary`."""

    format: ClassVar[str] = "bitsandbytes"
    codes: ClassVar[str] = "weight of bitsandbytes"
    remedy: ClassVar[str] = "use the unquantised release of this model, or fetch it again"
    packages: ClassVar[tuple[str, ...]] = ("torch", "bitsandbytes")

    def _results(self) -> dict[str, TensorSpec]:
        fours = {name: self._result(name, self._shape_of(name)) for name in self._states}
        eights = {name: self._result(name, self._tensors[name].shape) for name in self._rows}
        return fours | eights

    def _left_out(self) -> frozenset[str]:
        tables = {f"{name}{table}" for name in self._states for table in _TABLES}
        layouts = {f"{name.removesuffix('weight')}{_LAYOUT}" for name in self._rows}
        return frozenset((*self._states.values(), *tables, *self._rows.values(), *layouts))

    def _pieces(self, stored: str) -> Iterator[torch.Tensor]:
        import torch
        from bitsandbytes import functional

        if stored in self._states:
            with self._library(stored):
                state = functional.QuantState.from_dict(self._parts(stored), device=torch.device("cpu"))
                numbers = functional.dequantize_4bit(self._reader.whole(stored), state)
            yield numbers
            return
        scales = self._reader.whole(self._rows[stored])
        for start, stop in row_blocks(self._tensors[stored]):
            codes = self._reader.rows(stored, start, stop)
            yield functional.int8_vectorwise_dequant(codes, scales[start:stop])

    @cached_property
    def _states(self) -> dict[str, str]:
        """Weights of four bits, each with its state."""
        return {name.partition(_STATE)[0]: name for name in self._tensors if _STATE in name}

    @cached_property
    def _rows(self) -> dict[str, str]:
        """Weights of eight bits, each with the largest numbers of its rows."""
        found = {}
        for name in (each for each in self._tensors if each.endswith(f".{_ROW}")):
            weight = f"{name.removesuffix(_ROW)}weight"
            codes, scales = self._tensors.get(weight), self._tensors[name]
            if codes is None or codes.dtype != "I8" or len(codes.shape) != 2 or scales.shape != codes.shape[:1]:
                self._refuse(f"tensor {name!r} of shape {list(scales.shape)} fits no weight of eight bits")
            found[weight] = name
        return found

    def _parts(self, stored: str) -> dict[str, torch.Tensor]:
        """Everything that stands beside a weight of four bits, by what it is called there."""
        tables = (f"{stored}{table}" for table in _TABLES)
        names = [self._states[stored], *(name for name in tables if name in self._tensors)]
        return {name.removeprefix(f"{stored}."): self._reader.whole(name) for name in names}

    def _shape_of(self, stored: str) -> tuple[int, ...]:
        """The shape that the state of a weight of four bits says, where codes and tables fit it.

        The library takes sizes on trust.
        """
        state = self._state(stored)
        shape = state.get("shape")
        sides = shape if isinstance(shape, list) and all(type(side) is int and side > 0 for side in shape) else []
        count = math.prod(sides)
        groups = _groups(count, state.get("blocksize"))
        nested = "nested_blocksize" in state
        wanted = {
            "": ("U8", (count + 1) // 2),
            ".absmax": ("U8" if nested else "F32", groups),
            ".quant_map": ("F32", 16),
        }
        if nested:
            several = _groups(groups, state.get("nested_blocksize"))
            wanted |= {".nested_absmax": ("F32", several), ".nested_quant_map": ("F32", 256)}
        for table, (dtype, numel) in wanted.items():
            spec = self._tensors.get(f"{stored}{table}")
            if len(sides) != 2 or spec is None or (spec.dtype, spec.numel) != (dtype, numel):
                self._refuse(f"the state of {stored!r} does not fit {f'its {table[1:]}' if table else 'its codes'}")
        return tuple(sides)

    def _state(self, stored: str) -> dict[str, Any]:
        spec = self._tensors[self._states[stored]]
        if spec.dtype != "U8" or spec.nbytes > _LARGEST_STATE:
            self._refuse(f"tensor {spec.name!r} is no state of a weight")
        try:
            found = json.loads(self._reader.whole(spec.name).numpy().tobytes())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            self._refuse(f"tensor {spec.name!r} is no state of a weight")
        return found


def _groups(count: int, size: object) -> int:
    """How many groups of a size there are; none where it is no size."""
    return -(-count // size) if type(size) is int and size > 0 else 0
