"""What a capture keeps of the pooled activations: the rows themselves, or statistics that do not grow with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch

from polysafe.probe.moments import LayerMoments, MeanVariance, Tensors, below

T = TypeVar("T")
S = TypeVar("S", MeanVariance, LayerMoments)


@dataclass(frozen=True, slots=True)
class Pooled:
    """One row per prompt, from one layer.

    Attributes:
        indices: Positions of the prompts among all prompts.
        count: Number of all prompts.
        x: Pooled activations, [batch, width], on the processor.
        y: Those of the paired prompts, None without pairs.
    """

    indices: Sequence[int]
    count: int
    x: torch.Tensor
    y: torch.Tensor | None = None


class Store(ABC, Generic[T]):
    """Collects pooled activations layer by layer. `store[layer]` is what it has."""

    kind: ClassVar[str]
    pairs: ClassVar[bool] = False

    def __init__(self) -> None:
        self._layers: dict[int, T] = {}

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers it has something of."""
        return tuple(sorted(self._layers))

    def __getitem__(self, layer: int) -> T:
        return self._layers[layer]

    @abstractmethod
    def add(self, layer: int, batch: Pooled) -> None:
        """Takes the rows of some prompts."""

    def join(self, other: Store[T]) -> None:
        """Takes what another store of the same kind has of further layers, of the same prompts."""
        self._layers = {**other._layers, **self._layers}

    @abstractmethod
    def tensors(self) -> Tensors:
        """What has to be stored."""

    @abstractmethod
    def restore(self, stored: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`.

        Raises:
            KeyError: One is missing.
            ValueError: They are of something else.
        """


class Rows(Store[torch.Tensor]):
    """Keeps every pooled row: `rows[layer]` is [prompts, width], in the order of the prompts, on the processor.

    Args:
        dtype: Type to keep them in.
    """

    kind = "rows"

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype

    def add(self, layer: int, batch: Pooled) -> None:
        """Takes the rows of some prompts."""
        if layer not in self._layers:
            self._layers[layer] = torch.zeros(batch.count, batch.x.shape[1], dtype=self.dtype)
        self._layers[layer][list(batch.indices)] = batch.x.to(self.dtype)

    def tensors(self) -> Tensors:
        """What has to be stored."""
        return {str(layer): rows for layer, rows in self._layers.items()}

    def restore(self, stored: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`.

        Raises:
            ValueError: They are no rows.
        """
        if any(rows.ndim != 2 or not rows.is_floating_point() for rows in stored.values()):
            raise ValueError("rows that are no matrix")
        self._layers = {int(name): rows.to(self.dtype) for name, rows in stored.items()}


class _Sums(Store[S]):
    """Keeps sums that further rows are added to."""

    def tensors(self) -> Tensors:
        """What has to be stored."""
        return {f"{layer}.{k}": value for layer, part in self._layers.items() for k, value in part.tensors().items()}

    def restore(self, stored: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`."""
        layers = sorted({int(name.partition(".")[0]) for name in stored})
        self._layers = {layer: self._part(below(stored, str(layer))) for layer in layers}

    @abstractmethod
    def _part(self, stored: Tensors) -> S:
        """The sums of one layer."""


class Statistics(_Sums[MeanVariance]):
    """Keeps mean and variance of every unit: `statistics[layer]` is a `MeanVariance`."""

    kind = "statistics"

    def add(self, layer: int, batch: Pooled) -> None:
        """Takes the rows of some prompts."""
        self._layers.setdefault(layer, MeanVariance.empty(batch.x.shape[1])).update(batch.x)

    def _part(self, stored: Tensors) -> MeanVariance:
        return MeanVariance.from_tensors(stored)


class Moments(_Sums[LayerMoments]):
    """Keeps first and second moments: `moments[layer]` is a `LayerMoments`. Memory does not depend on the prompts.

    Args:
        device: Where the float64 sums are kept; 8·width² bytes for each, one of them per layer and three with pairs.
    """

    kind = "moments"
    pairs = True

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.device = device

    def add(self, layer: int, batch: Pooled) -> None:
        """Takes the rows of some prompts."""
        if layer not in self._layers:
            paired = batch.y is not None
            self._layers[layer] = LayerMoments.empty(batch.x.shape[1], paired=paired, device=self.device)
        self._layers[layer].update(batch.x, batch.y)

    def _part(self, stored: Tensors) -> LayerMoments:
        return LayerMoments.from_tensors(stored, self.device)
