"""Numbers of FP8 checkpoints: every code times its scale.

Known are the layouts of published checkpoints, in which the scale of `X.weight` is beside it: `X.weight_scale_inv` (one
for every block of 128 × 128, or as the config says; DeepSeek, Qwen3) and `X.weight_scale` (one for the tensor or for
every row; compressed-tensors, FBGEMM, ModelOpt). Both are factors, whatever their names say.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.quantised.ordinary import Ordinary
from polysafe.checkpoint.reader import row_blocks

if TYPE_CHECKING:
    import torch

CODES = ("F8_E4M3", "F8_E5M2")
_SCALES = ("_scale_inv", "_scale")
_BLOCK = (128, 128)


class Fp8(Ordinary):
    """An FP8 checkpoint with ordinary numbers. What it is made with and raises: `Ordinary`."""

    format: ClassVar[str] = "fp8"
    codes: ClassVar[str] = "FP8 weight"
    remedy: ClassVar[str] = "use the unquantised release of this model, or a checkpoint whose FP8 weights have scales"

    def _results(self) -> dict[str, TensorSpec]:
        return {name: self._result(name, self._tensors[name].shape) for name in self._scales}

    def _left_out(self) -> frozenset[str]:
        return frozenset(self._scales.values())

    def _pieces(self, stored: str) -> Iterator[torch.Tensor]:
        for start, stop in row_blocks(self._tensors[stored]):
            yield self._reader.rows(stored, start, stop).float() * self._factors(stored, start, stop)

    @cached_property
    def _scales(self) -> dict[str, str]:
        return {name: self._scale_of(name) for name, spec in self._tensors.items() if spec.dtype in CODES}

    def _factors(self, name: str, start: int, stop: int) -> torch.Tensor:
        """What rows `start:stop` of a weight are multiplied by, of a shape that can be spread over them."""
        import torch

        spec, scale = self._tensors[name], self._reader.whole(self._scales[name]).float()
        if scale.numel() == 1:
            return scale.reshape(1, 1)
        if scale.shape in {(spec.rows,), (spec.rows, 1)}:
            return scale.reshape(-1, 1)[start:stop]
        height, width = self._block
        of_rows = scale[torch.arange(start, stop) // height]
        return of_rows.repeat_interleave(width, dim=1)[:, : spec.columns]

    @property
    def _block(self) -> tuple[int, int]:
        stated = self._found.settings.get("weight_block_size")
        if isinstance(stated, list) and len(stated) == 2 and all(type(side) is int and side > 0 for side in stated):
            return stated[0], stated[1]
        return _BLOCK

    def _scale_of(self, name: str) -> str:
        spec = self._tensors[name]
        scale = next((name + end for end in _SCALES if name + end in self._tensors), None)
        if scale is None:
            self._refuse(f"tensor {name!r} is FP8 and has no scale beside it")
        shape = self._tensors[scale].shape
        if len(spec.shape) != 2:
            self._refuse(f"tensor {name!r} is FP8 and no matrix")
        blocks = tuple(-(-side // block) for side, block in zip(spec.shape, self._block, strict=True))
        if shape not in {(), (1,), (1, 1), (spec.rows,), (spec.rows, 1), blocks}:
            self._refuse(f"tensor {scale!r} of shape {list(shape)} does not fit {list(spec.shape)}")
        return scale
