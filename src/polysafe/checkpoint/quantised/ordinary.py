"""Quantised checkpoints as they will be with ordinary numbers, a tensor at a time; what every format has in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NoReturn

from polysafe.checkpoint.dtypes import TORCH_NAMES, bytes_of, torch_dtype
from polysafe.checkpoint.header import TensorSpec, tensor_bytes
from polysafe.checkpoint.quantised import Quantisation, is_code
from polysafe.checkpoint.reader import CheckpointReader, row_blocks
from polysafe.checkpoint.sidecar import side_files
from polysafe.checkpoint.source import config_text
from polysafe.checkpoint.values import is_finite
from polysafe.errors import CheckpointError

if TYPE_CHECKING:
    import torch

_OF_ACTIVATIONS = re.compile(r"\.((in|out)put|activation|[qkv])_(global_)?(scale|zero_point)$")


class Ordinary(ABC):
    """A quantised checkpoint with ordinary numbers.

    Args:
        reader: The checkpoint, open.
        dtype: Type that dequantised weights are rounded to; other tensors stay as they are.
        found: How it is quantised.

    Attributes:
        format: The format, as records of imports name it.
        codes: What a weight of the format is called in messages.
        remedy: What to do with a folder that is refused.
        packages: Packages that read it, whose versions decide the numbers.

    Raises:
        CheckpointError: A weight lacks what its codes mean, or it does not fit.
    """

    format: ClassVar[str]
    codes: ClassVar[str]
    remedy: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(self, reader: CheckpointReader, dtype: str, found: Quantisation) -> None:
        self._reader, self._dtype, self._found = reader, dtype, found
        self._tensors: Mapping[str, TensorSpec] = reader.checkpoint.tensors
        self._made = self._results()
        self._stored = {spec.name: stored for stored, spec in self._made.items()}
        for spec in self._kept:
            if spec.name not in self._made and is_code(spec):
                self._refuse(f"tensor {spec.name!r} is stored as {spec.dtype}, which is no {self.codes}")
        for name, count in Counter(spec.name for spec in self.specs).items():
            if count > 1:
                self._refuse(f"tensor {name!r} is there as codes and as numbers")

    @abstractmethod
    def _results(self) -> dict[str, TensorSpec]:
        """Every tensor of codes -> what becomes of it (`_result`)."""

    @abstractmethod
    def _left_out(self) -> frozenset[str]:
        """Tensors that say what codes mean: scales and tables."""

    @abstractmethod
    def _pieces(self, stored: str) -> Iterator[torch.Tensor]:
        """The numbers of a tensor of codes, piece after piece in the order of the result."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know."""
        left = len(self._of_activations)
        return (f"{left} scales of activations are left out: ordinary weights need none",) if left else ()

    @property
    def types(self) -> dict[str, int]:
        """Storage types of the tensors that are taken over, each with their number, the most frequent first."""
        kinds = [spec.dtype for spec in self._kept]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))}

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors of the result, in the order of the files."""
        return tuple(self._made.get(spec.name, spec) for spec in self._kept)

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
        stored = self._stored.get(name)
        if stored is None:
            for start, stop in row_blocks(self._tensors[name]):
                yield bytes_of(self._reader.rows(name, start, stop))
            return
        for piece in self._pieces(stored):
            numbers = piece.to(torch_dtype(self._dtype))
            if not is_finite(numbers):
                self._refuse(f"tensor {stored!r} holds NaN, or numbers that are too large for {self._dtype}")
            yield bytes_of(numbers)

    def _result(self, stored: str, shape: tuple[int, ...], name: str | None = None) -> TensorSpec:
        """What a tensor of codes becomes."""
        spec = self._tensors[stored]
        nbytes = tensor_bytes(self._dtype, shape)
        return replace(spec, name=name or stored, dtype=self._dtype, shape=shape, nbytes=nbytes)

    @contextmanager
    def _library(self, stored: str) -> Iterator[None]:
        """What a library raises over a tensor of codes is said as a refusal."""
        try:
            yield
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self._refuse(f"{self.format} cannot read {stored!r}: {type(error).__name__}: {error}")

    @property
    def _kept(self) -> list[TensorSpec]:
        gone = self._left_out() | self._of_activations
        return [spec for spec in self._tensors.values() if spec.name not in gone]

    @cached_property
    def _of_activations(self) -> frozenset[str]:
        """Tensors that say how what passes through the model was quantised while it ran."""
        return frozenset(filter(_OF_ACTIVATIONS.search, self._tensors))

    def _refuse(self, problem: str) -> NoReturn:
        raise CheckpointError(problem, where=self._reader.checkpoint.root, remedy=self.remedy)


def _without_quantisation(config: Mapping[str, object]) -> dict[str, object]:
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    nested = plain.get("text_config")
    return plain | ({"text_config": _without_quantisation(nested)} if isinstance(nested, dict) else {})
