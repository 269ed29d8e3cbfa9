"""Numbers of checkpoints of whole numbers that llm-compressor writes, as the library compressed-tensors computes them.

`X.weight_packed` holds codes of 2, 4 or 8 bits, as many in an int32 as fit, and `X.weight_shape` how many are meant;
unpacked formats hold a code a byte in `X.weight`. `X.weight_scale` is one factor for the tensor, or one for every row
or group of inputs; `X.weight_zero_point` is what is taken away before, packed along rows where the codes are packed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from polysafe.checkpoint.dtypes import FLOATS
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.quantised.ordinary import Ordinary
from polysafe.checkpoint.quantised.scheme import PACKED, Scheme, scheme_of
from polysafe.checkpoint.reader import BLOCK_BYTES
from polysafe.checkpoint.values import is_finite

if TYPE_CHECKING:
    import torch

_SCALE, _ZERO, _SHAPE = "weight_scale", "weight_zero_point", "weight_shape"
_BESIDE = re.compile(r"\.weight_(shape|(global_)?scale|zero_point)$")
_ROWS = 32
"""Rows whose zero points end with an int32, whatever the width."""


class CompressedTensors(Ordinary):
    """A checkpoint of compressed-tensors with ordinary numbers. What it is made with and raises: `Ordinary`."""

    format: ClassVar[str] = "compressed-tensors"
    codes: ClassVar[str] = "weight of compressed-tensors"
    remedy: ClassVar[str] = (
        "use the unquantised release of this model, or one with whole numbers in all its weights (W4A16, W8A16, W8A8)"
    )
    packages: ClassVar[tuple[str, ...]] = ("torch", "compressed_tensors")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        running = ", ".join(self._scheme.running)
        lost = f"what was quantised while the model ran is so no longer ({running})"
        return (*super().notes, *((lost,) if running else ()))

    def _results(self) -> dict[str, TensorSpec]:
        end = "weight_packed" if self._packed else "weight"
        ends = (spec for name, spec in self._tensors.items() if name.endswith(f".{end}"))
        coded = [spec.name for spec in ends if self._packed or spec.dtype == "I8"]
        made = {name: self._result(name, self._shape_of(name), f"{name.removesuffix(end)}weight") for name in coded}
        known = {f"{name.removesuffix(end)}{part}" for name in made for part in self._parts}
        for name in self._tensors:
            if name.endswith(".weight_g_idx"):
                self._refuse(f"tensor {name!r} reorders inputs (actorder), which compressed-tensors no longer reads")
            if name not in known and _BESIDE.search(name):
                self._refuse(f"tensor {name!r} belongs to no weight of codes")
        return made

    def _left_out(self) -> frozenset[str]:
        modules = {spec.name.removesuffix("weight") for spec in self._made.values()}
        return frozenset(f"{module}{part}" for module in modules for part in self._parts)

    def _pieces(self, stored: str) -> Iterator[torch.Tensor]:
        import torch
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

        scheme, (rows, columns) = self._scheme, self._made[stored].shape
        module, _, end = stored.rpartition(".")
        with self._library(stored):
            told = QuantizationScheme(targets=[], weights=QuantizationArgs(**scheme.arguments))
        step = _ROWS * max(1, BLOCK_BYTES // (_ROWS * columns))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            parts = {end: self._reader.rows(stored, start, stop)}
            for part in self._parts:
                parts[part] = self._part(f"{module}.{part}", start, stop)
            if not is_finite(parts[_SCALE]):
                self._refuse(f"tensor '{module}.{_SCALE}' holds NaN or infinity")
            if _SHAPE in parts:
                parts[_SHAPE] = torch.tensor([stop - start, columns])
            with self._library(stored):
                piece = BaseCompressor.get_value_from_registry(scheme.format).decompress(parts, told)["weight"]
            yield piece

    def _part(self, name: str, start: int, stop: int) -> torch.Tensor:
        """What stands beside rows `start:stop` of a weight."""
        import torch

        spec, words = self._tensors[name], self._scheme.words
        if len(spec.shape) < 2:
            return self._reader.whole(name)
        if spec.dtype != "I32":
            return self._reader.rows(name, start, stop)
        packed = self._reader.rows(name, words(start), words(stop))
        # The library looks at the transpose as bytes, which fails for a single row unless it is laid out in that order
        return packed.T.clone(memory_format=torch.contiguous_format).T

    @property
    def _parts(self) -> tuple[str, ...]:
        """What stands beside every weight."""
        return (_SCALE, *((_SHAPE,) if self._packed else ()), *(() if self._scheme.symmetric else (_ZERO,)))

    @property
    def _packed(self) -> bool:
        return self._scheme.format == PACKED

    @cached_property
    def _scheme(self) -> Scheme:
        try:
            return scheme_of(self._found.settings)
        except ValueError as error:
            self._refuse(str(error))

    def _shape_of(self, stored: str) -> tuple[int, ...]:
        """The shape of a weight, where everything beside it fits: the library takes shapes on trust."""
        scheme, spec, module = self._scheme, self._tensors[stored], stored.rpartition(".")[0]
        shape = self._stated_shape(f"{module}.{_SHAPE}") if self._packed else spec.shape
        if len(shape) != 2 or min(shape) < 1:
            self._refuse(f"tensor {stored!r} of shape {list(shape)} is no matrix")
        rows, columns = shape
        if self._packed:
            self._check(stored, ("I32",), (rows, scheme.words(columns)))
        if scheme.group and columns % scheme.group:
            self._refuse(f"groups of {scheme.group} do not divide the {columns} inputs of {stored!r}")
        factors = {"tensor": (1,), "channel": (rows, 1)}.get(scheme.strategy, (rows, columns // (scheme.group or 1)))
        self._check(f"{module}.{_SCALE}", FLOATS, factors)
        if not scheme.symmetric and self._packed and scheme.strategy != "tensor":
            self._check(f"{module}.{_ZERO}", ("I32",), (scheme.words(rows), factors[1]))
        elif not scheme.symmetric:
            self._check(f"{module}.{_ZERO}", ("I8",), factors)
        return shape

    def _stated_shape(self, name: str) -> tuple[int, ...]:
        self._check(name, ("I64", "I32"), (2,))
        return tuple(self._reader.whole(name).tolist())

    def _check(self, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> None:
        spec = self._tensors.get(name)
        if spec is None:
            self._refuse(f"there is no tensor {name!r}, without which codes mean nothing")
        if spec.dtype not in dtypes or spec.shape != shape:
            wanted = f"{' or '.join(dtypes)} of shape {list(shape)}"
            self._refuse(f"tensor {name!r} is {spec.dtype} of shape {list(spec.shape)}, and has to be {wanted}")
