"""Where the units of a layer's MLP are stored: rows of `gate_proj` and `up_proj`, of a fused tensor, or of `fc1`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import TensorReader
from polysafe.checkpoint.roles import Kind, Module, TensorRole
from polysafe.errors import ArchitectureError

Side = Literal["gate", "up"]
ProjectionName = Literal["gate", "up", "fc_in"]

_OTHER_LAYERS = "sparse weight editing changes rows of dense gate, up or fc1 projections; name other layers"
_OTHER_METHODS = "sparse weight editing changes rows of projections; swaps and head steering work with this layout"


@dataclass(frozen=True, slots=True)
class Projection:
    """One of the projections that read a layer's MLP input.

    Attributes:
        layer: Its layer.
        name: `gate`, `up`, or `fc_in` in an MLP without a gate.
        tensor: The tensor that holds it.
        first: First row of that tensor that belongs to it; not 0 for the second half of a fused tensor.
        units: Number of its rows.
        bias: Its bias, None if it has none.
    """

    layer: int
    name: ProjectionName
    tensor: str
    first: int
    units: int
    bias: str | None = None

    def weight(self, reader: TensorReader) -> torch.Tensor:
        """The rows as stored, [units, d], in float64."""
        return reader.rows(self.tensor, self.first, self.first + self.units).to(torch.float64, copy=True)

    def outputs(self, reader: TensorReader, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs for inputs [N, d]: [N, units] in float64, before any nonlinearity."""
        found = inputs.to(torch.float64) @ self.weight(reader).mT
        if self.bias is not None:
            found += reader.whole(self.bias).flatten()[self.first : self.first + self.units].to(torch.float64)
        return found


def mlp_projections(source: Source, layer: int, sides: Sequence[Side] = ("gate", "up")) -> tuple[Projection, ...]:
    """The projections of a layer that can be edited: the asked sides of a gated MLP, or the only one of a plain MLP.

    In a mixture of experts these are the projections of the shared expert, which all tokens pass.

    Raises:
        ArchitectureError: The layer does not exist, has routed experts only, or stores its MLP in another way.
    """
    if not 0 <= layer < source.architecture.num_layers:
        raise ArchitectureError(
            f"there is no layer {layer}; the model has layers 0 … {source.architecture.num_layers - 1}",
            where=source.name,
        )
    everything = _mlp_roles(source, layer)
    roles = {name: role for name, role in everything.items() if role.expert is None and role.experts is None}
    if everything and not roles:
        raise _unsupported(source, layer, "is a mixture of experts without a shared one, and no expert sees all tokens")
    if not roles:
        raise ArchitectureError(f"layer {layer} has no MLP that is recognised", where=source.checkpoint.root)
    if any(role.transposed for role in roles.values()):
        raise _unsupported(source, layer, "is stored input × output, so that units are no rows", _OTHER_METHODS)
    stored = {role.projection: name for name, role in roles.items() if not role.bias}
    biases = {role.projection: name for name, role in roles.items() if role.bias}
    if "gate_up" in stored:
        half = source.reader.spec(stored["gate_up"]).rows // 2
        starts = {"gate": 0, "up": half}
        return tuple(
            Projection(layer, side, stored["gate_up"], starts[side], half, biases.get("gate_up")) for side in sides
        )
    plain: tuple[ProjectionName, ...] = ("fc_in",) if "fc_in" in stored else ("up",)
    wanted = tuple(sides) if "gate" in stored else plain
    if missing := [name for name in wanted if name not in stored]:
        raise _unsupported(source, layer, f"has no projection {missing[0]!r}")
    return tuple(
        Projection(layer, name, stored[name], 0, source.reader.spec(stored[name]).rows, biases.get(name))
        for name in wanted
    )


def left_alone(source: Source, edited: Sequence[int], looked_at: Sequence[int]) -> Iterator[str]:
    """What no edit of MLP units reaches: routed experts of edited layers, and layers that have no such units.

    Args:
        source: The model.
        edited: Layers that are edited.
        looked_at: Layers that could have been.
    """
    for layer in edited:
        if any(role.expert is not None or role.experts is not None for role in _mlp_roles(source, layer).values()):
            yield f"layer {layer} is a mixture: its shared expert is edited, the routed ones stay as they are"
    if missed := [layer for layer in range(source.architecture.num_layers) if layer not in looked_at]:
        yield f"layers {', '.join(map(str, missed))} have no units that can be edited"


def _mlp_roles(source: Source, layer: int) -> dict[str, TensorRole]:
    names = source.architecture.layer_tensors(layer, Module.MLP)
    roles = {name: source.architecture.roles[name] for name in names}
    return {name: role for name, role in roles.items() if role.kind is Kind.PROJECTION}


def _unsupported(source: Source, layer: int, problem: str, remedy: str = _OTHER_LAYERS) -> ArchitectureError:
    return ArchitectureError(f"the MLP of layer {layer} {problem}", where=source.checkpoint.root, remedy=remedy)
