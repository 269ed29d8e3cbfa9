"""Spherical linear interpolation of two models, tensor by tensor.

Shoemake, *Animating Rotation with Quaternion Curves*, SIGGRAPH 1985. With the angle Ω between two tensors a and b of
the same shape, taken as vectors,

    slerp(a, b; t) = sin((1 - t)·Ω) / sin Ω · a + sin(t·Ω) / sin Ω · b

which is a weighted sum, once Ω is known. Tensors that are almost parallel or antiparallel, |cos Ω| > 0.9995, are
interpolated linearly, and the angle to a tensor of zeros is a right one: both as in mergekit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.opened import Source, Sources
from polysafe.checkpoint.reader import row_blocks
from polysafe.edits.operations import Operation, blend
from polysafe.errors import CheckpointError
from polysafe.files.strict import Strict
from polysafe.methods.base import SourceName
from polysafe.methods.merges import Merge
from polysafe.methods.registry import register
from polysafe.methods.scores import remembered
from polysafe.threads import in_order, threads

PARALLEL = 0.9995
"""Cosine from which on two tensors are interpolated linearly."""
_COSINES = "cosines"

Share = Annotated[float, Field(ge=0, le=1)]
Gradient = Annotated[tuple[Share, ...], Field(min_length=2)]


class Part(Strict):
    """How far the tensors of one part of the model go."""

    filter: Annotated[str, Field(min_length=1)] | None = None
    """Text in the names of the tensors, `self_attn` or `mlp` for example; all the others where it is left out."""
    value: Share | Gradient
    """t, or values that t goes through from the first layer to the last."""


@register
class Slerp(Merge):
    """Go from one model to another on the arc between their tensors (Shoemake, SIGGRAPH 1985)."""

    name: ClassVar[str] = "slerp"
    version: ClassVar[int] = 1
    titles: ClassVar[Mapping[str, str]] = {"slerp": "SLERP"}
    citation: ClassVar[str] = (
        "Shoemake: Animating rotation with quaternion curves. SIGGRAPH 1985. https://doi.org/10.1145/325165.325242"
    )
    baseline: ClassVar[bool] = True

    first: SourceName
    """Source that t = 0 is."""
    second: SourceName
    """Source that t = 1 is."""
    t: Share | Gradient | Annotated[tuple[Part, ...], Field(min_length=1)] = 0.5
    """How far to go; a list is a gradient over the layers, whose first value also holds outside of them.

    Parts are tried in order; the last one has no `filter`.
    """

    @model_validator(mode="after")
    def _complete(self) -> Slerp:
        if self.first == self.second:
            raise ValueError("first and second must be two different sources")
        *others, last = (part.filter for part in self._parts)
        if last is not None or None in others:
            raise ValueError("the last part of `t`, and no other, has no `filter`: it is for all the other tensors")
        return self

    @classmethod
    def ranges(cls, layers: int) -> Mapping[str, Any]:  # noqa: ARG003
        """How far to go."""
        return {"t": {"low": 0.0, "high": 1.0}}

    @property
    def merged(self) -> tuple[str, ...]:
        """Names of both models."""
        return self.first, self.second

    def reads(self, sources: Sources) -> Iterator[TensorSpec]:
        """Every merged tensor of both models once."""
        for source in self.merged:
            yield from (sources[source].reader.spec(tensor) for tensor in self.merged_tensors(sources))

    def operations(self, sources: Sources) -> dict[str, Operation]:
        """The weighted sum that each tensor's angle leads to."""
        first, second = (sources[name] for name in self.merged)
        tensors = self.merged_tensors(sources)
        roles, layers = first.architecture.roles, first.architecture.num_layers
        found: dict[str, Operation] = {}
        for tensor, cosine in zip(tensors, cosines(first, second, tensors), strict=True):
            near, far = slerp_weights(cosine, self.share(tensor, roles[tensor].layer, layers))
            found[tensor] = blend({self.first: near, self.second: far})
        return found

    def share(self, tensor: str, layer: int | None, layers: int) -> float:
        """How far a tensor goes.

        Args:
            tensor: Its name.
            layer: Its layer, None outside of the layers.
            layers: Number of layers of the model.
        """
        value = next(part.value for part in self._parts if part.filter is None or part.filter in tensor)
        if not isinstance(value, tuple):
            return value
        place = (len(value) - 1) * (layer or 0) / max(1, layers - 1)
        step = min(int(place), len(value) - 2)
        return value[step] + (value[step + 1] - value[step]) * (place - step)

    @property
    def _parts(self) -> tuple[Part, ...]:
        if isinstance(self.t, tuple) and isinstance(self.t[0], Part):
            return self.t
        return (Part(value=self.t),)


def slerp_weights(cosine: float, t: float) -> tuple[float, float]:
    """The weights of two tensors whose angle has this cosine; the ends are the tensors themselves."""
    if t in {0.0, 1.0} or abs(cosine) > PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def cosines(first: Source, second: Source, tensors: Sequence[str]) -> list[float]:
    """Cosines of the angles between tensors of the same name, in float64, a block of rows in memory.

    Nothing is read of files that have not changed since (`files.memory`).

    Raises:
        CheckpointError: A tensor is not finite.
    """

    def measure() -> list[float]:
        with threads(1):
            return list(in_order(lambda tensor: _cosine(first, second, tensor), tensors))

    return remembered(_COSINES, first, second, [list(tensors)], len(tensors), measure)


def _cosine(first: Source, second: Source, tensor: str) -> float:
    import torch

    dot = of_first = of_second = 0.0
    for start, stop in row_blocks(first.reader.spec(tensor)):
        one, other = (each.reader.rows(tensor, start, stop).to(torch.float64).flatten() for each in (first, second))
        dot += float(one @ other)
        of_first += float(one @ one)
        of_second += float(other @ other)
    if not math.isfinite(of_first + of_second):
        raise CheckpointError(
            f"tensor {tensor} of {first.name!r} or {second.name!r} holds NaN or infinity",
            where=second.reader.spec(tensor).file,
            remedy="a checkpoint with such weights is broken; fetch or train it again",
        )
    norms = math.sqrt(of_first) * math.sqrt(of_second)
    return max(-1.0, min(1.0, dot / norms)) if norms else 0.0
