"""Numbers of MXFP4 checkpoints, as gpt-oss is released: two codes of four bits in a byte, 32 codes to a scale.

OCP Microscaling Formats (MX) v1.0, sections 5.2 and 5.3.3: a code is a sign, two bits of exponent and one of mantissa
(E2M1), a scale a power of two (E8M0, bias 127). `X_blocks` holds the bytes of every expert, output and group of inputs,
[experts, outputs, groups, 16], `X_scales` a scale for each group; the result is `X`, [experts, inputs, outputs], as the
classes of transformers keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.quantised.ordinary import Ordinary

if TYPE_CHECKING:
    import torch

_BLOCKS, _SCALES = "_blocks", "_scales"
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_PACKED = 16
"""Bytes of a group: 32 codes."""
_BIAS = 127


class Mxfp4(Ordinary):
    """An MXFP4 checkpoint with ordinary numbers. What it is made with and raises: `Ordinary`."""

    format: ClassVar[str] = "mxfp4"
    codes: ClassVar[str] = "MXFP4 weight"
    remedy: ClassVar[str] = "use an unquantised release of this model, or fetch it again"

    def _results(self) -> dict[str, TensorSpec]:
        return {name: self._expected(name) for name in self._tensors if name.endswith(_BLOCKS)}

    def _left_out(self) -> frozenset[str]:
        return frozenset(f"{name.removesuffix(_BLOCKS)}{_SCALES}" for name in self._made)

    def _expected(self, name: str) -> TensorSpec:
        codes, scales = self._tensors[name], self._tensors.get(f"{name.removesuffix(_BLOCKS)}{_SCALES}")
        if scales is None:
            self._refuse(f"tensor {name!r} has no scales beside it")
        if codes.dtype != "U8" or len(codes.shape) != 4 or codes.shape[-1] != _PACKED:
            self._refuse(f"tensor {name!r} is {codes.dtype} of shape {list(codes.shape)}, and no stack of MXFP4 groups")
        if scales.dtype != "U8" or scales.shape != codes.shape[:-1]:
            self._refuse(f"tensor {scales.name!r} is {scales.dtype} of shape {list(scales.shape)}, which does not fit")
        experts, outputs, groups, _ = codes.shape
        return self._result(name, (experts, 2 * _PACKED * groups, outputs), name.removesuffix(_BLOCKS))

    def _pieces(self, stored: str) -> Iterator[torch.Tensor]:
        import torch

        experts, outputs, groups, _ = self._tensors[stored].shape
        scales = f"{stored.removesuffix(_BLOCKS)}{_SCALES}"
        numbers = torch.tensor([*_MAGNITUDES, *(-each for each in _MAGNITUDES)])
        for expert in range(experts):  # one of them is all that memory holds
            first, last = expert * outputs, (expert + 1) * outputs
            codes = self._reader.rows(stored, first * groups, last * groups).int()
            exponents = self._reader.rows(scales, first, last).int() - _BIAS
            pairs = torch.stack((numbers[codes & 15], numbers[codes >> 4]), dim=-1)  # the low half comes first
            values = torch.ldexp(pairs.view(outputs, groups, 2 * _PACKED), exponents[..., None])
            yield values.view(outputs, -1).T
