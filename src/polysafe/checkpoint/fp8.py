"""Numbers of FP8 checkpoints: every code times its scale.

Known are the layouts of published checkpoints, in which the scale of `X.weight` is beside it: `X.weight_scale_inv` (one
for every block of 128 × 128, or as the config says; DeepSeek, Qwen3) and `X.weight_scale` (one for the tensor or for
every row; compressed-tensors, FBGEMM, ModelOpt). Both are factors, whatever their names say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from polysafe.checkpoint.dtypes import TORCH_NAMES, bytes_of, torch_dtype
from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.quantised import Quantisation, is_code, quantisation
from polysafe.checkpoint.reader import CheckpointReader, row_blocks
from polysafe.checkpoint.sidecar import side_files
from polysafe.checkpoint.source import config_text
from polysafe.checkpoint.values import is_finite
from polysafe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

CODES = ("F8_E4M3", "F8_E5M2")
_SCALES = ("_scale_inv", "_scale")
_OF_ACTIVATIONS = (".input_scale", ".activation_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")
_BLOCK = (128, 128)


class Fp8Conversion:
    """An FP8 checkpoint as it will be with ordinary numbers, a tensor at a time.

    Args:
        reader: The checkpoint, open.
        dtype: Type that dequantised weights are rounded to; other tensors stay as they are.

    Raises:
        CheckpointError: It is not quantised, otherwise quantised, or a weight has no scale that fits it.
    """

    def __init__(self, reader: CheckpointReader, dtype: str) -> None:
        self._reader, self._dtype = reader, dtype
        self._tensors = reader.checkpoint.tensors
        self._found = self._require_fp8()
        self._weights = [name for name, spec in self._tensors.items() if spec.dtype in CODES]
        self._scales = {name: self._scale_of(name) for name in self._weights}
        for spec in self._kept:
            if spec.name not in self._scales and is_code(spec):
                self._refuse(f"tensor {spec.name!r} is stored as {spec.dtype}, which is no FP8 weight")

    @property
    def types(self) -> dict[str, int]:
        """Storage types of the tensors that are taken over, each with their number, the most frequent first."""
        kinds = [self._tensors[spec.name].dtype for spec in self.specs]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        left = sum(name.endswith(_OF_ACTIVATIONS) for name in self._tensors)
        return (f"{left} scales of activations are left out: ordinary weights need none",) if left else ()

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the result, in the order of the files."""
        return tuple(
            replace(spec, dtype=self._dtype, nbytes=tensor_bytes(self._dtype, spec.shape))
            if spec.name in self._scales
            else spec
            for spec in self._kept
        )

    def side_files(self) -> dict[str, bytes]:
        """Everything but the weights; the config says nothing of quantisation any more."""
        checkpoint = self._reader.checkpoint
        files = {file.name: file.content for file in side_files(checkpoint, checkpoint)}
        key = "dtype" if "dtype" in checkpoint.config else "torch_dtype"
        config = _without_quantisation(checkpoint.config) | {key: TORCH_NAMES[self._dtype]}
        return files | {"config.json": config_text(config)}

    def blocks(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor of the result, block by block.

        Raises:
            CheckpointError: A number is none, or too large for the type.
        """
        spec = self._tensors[name]
        for start, stop in row_blocks(spec):
            rows = self._reader.rows(name, start, stop)
            if name in self._scales:
                rows = (rows.float() * self._factors(name, start, stop)).to(torch_dtype(self._dtype))
                if not is_finite(rows):
                    self._refuse(f"tensor {name!r} holds NaN, or numbers that are too large for {self._dtype}")
            yield bytes_of(rows)

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

    @property
    def _kept(self) -> list[TensorSpec]:
        gone = set(self._scales.values())
        return [s for s in self._tensors.values() if s.name not in gone and not s.name.endswith(_OF_ACTIVATIONS)]

    def _require_fp8(self) -> Quantisation:
        found = quantisation(self._reader.checkpoint)
        if found is None:
            self._refuse("is not quantised: it can be used as it is")
        if not any(spec.dtype in CODES for spec in self._tensors.values()):
            self._refuse(f"is quantised as {found.label}, which is not dequantised here ({found.told})")
        return found

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

    def _refuse(self, problem: str) -> NoReturn:
        raise CheckpointError(
            problem,
            where=self._reader.checkpoint.root,
            remedy="use the unquantised release of this model, or a checkpoint whose FP8 weights have scales",
        )


def _without_quantisation(config: Mapping[str, object]) -> dict[str, object]:
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    nested = plain.get("text_config")
    return plain | ({"text_config": _without_quantisation(nested)} if isinstance(nested, dict) else {})
