"""Where a layer writes what its attention heads say: columns of the output projection, or rows of a Conv1D."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch

from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import row_blocks
from polysafe.checkpoint.roles import HeadLayout, Kind, Module
from polysafe.edits.operations import AddDelta
from polysafe.errors import ArchitectureError, MismatchError
from polysafe.methods.head_steering.choice import Head, column_ranges


@dataclass(frozen=True, slots=True)
class OutputProjection:
    """The matrix through which the heads of one layer write.

    Attributes:
        layer: The layer.
        tensor: Its weight.
        transposed: Whether it is stored input × output, so that heads are blocks of rows.
    """

    layer: int
    tensor: str
    transposed: bool


@dataclass(frozen=True)
class HeadColumns:
    """The output projections of the layers that have attention heads.

    Maps of heads have a row for each of these layers; row and layer are the same but in hybrids.

    Attributes:
        projections: One per such layer.
        heads: Query heads per layer; grouped keys and values make no difference here.
        size: Size of a head: head h owns inputs h·size … (h + 1)·size − 1.
        depth: Number of layers of the model, with heads or without.
    """

    projections: tuple[OutputProjection, ...]
    heads: int
    size: int
    depth: int

    @property
    def notes(self) -> tuple[str, ...]:
        """That layers are left out, of a hybrid."""
        told = f"{len(self.layers)} of {self.depth} layers have attention heads, the others none"
        return (told,) if len(self.layers) < self.depth else ()

    @property
    def evidence(self) -> Mapping[str, list[int]]:
        """The layer of every row, where they are not the same."""
        return {"layers_with_heads": list(self.layers)} if len(self.layers) < self.depth else {}

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that have heads, in order: of every row its layer."""
        return tuple(projection.layer for projection in self.projections)

    def at(self, rows: Iterable[Head]) -> tuple[Head, ...]:
        """Heads of the model from heads of maps."""
        return tuple((self.layers[row], head) for row, head in rows)

    def rows(self, heads: Iterable[Head]) -> tuple[Head, ...]:
        """Heads of maps from heads of the model."""
        return tuple((self.layers.index(layer), head) for layer, head in heads)

    def operations(self, of: str, minus: str, scale: float, heads: Collection[Head]) -> dict[str, AddDelta]:
        """Adds scale·(W_of − W_minus) on the inputs of the heads and on nothing else, by tensor."""
        found = {}
        for projection in self.projections:
            ranges = column_ranges(heads, projection.layer, self.size)
            if ranges:
                where = {"rows": ranges} if projection.transposed else {"columns": ranges}
                found[projection.tensor] = AddDelta.model_validate({"of": of, "minus": minus, "scale": scale, **where})
        return found


def head_columns(source: Source) -> HeadColumns:
    """Finds the output projections by their roles; head size comes from the config or the matrix, never from the width.

    Raises:
        ArchitectureError: No layer has attention heads, the config does not state how many, or layers differ in their
            width.
    """
    if not source.architecture.with_heads:
        raise ArchitectureError(
            "no layer has attention heads",
            where=source.checkpoint.root,
            remedy="state spaces and linear attention have none to steer; other methods may work with this model",
        )
    layout = source.architecture.heads
    if layout is None:
        raise ArchitectureError(
            "the config does not state how many attention heads there are",
            where=source.checkpoint.root,
            remedy="head steering needs num_attention_heads in config.json",
        )
    return HeadColumns(
        tuple(_projection(source, layer, layout) for layer in source.architecture.with_heads),
        layout.num_heads,
        layout.head_dim,
        source.architecture.num_layers,
    )


def _projection(source: Source, layer: int, layout: HeadLayout) -> OutputProjection:
    for name in source.architecture.layer_tensors(layer, Module.ATTENTION):
        role = source.architecture.roles[name]
        if role.kind is Kind.PROJECTION and role.projection == "o" and not role.bias:
            spec = source.reader.spec(name)
            if len(spec.shape) == 2 and spec.shape[0 if role.transposed else 1] == layout.num_heads * layout.head_dim:
                return OutputProjection(layer, name, role.transposed)
    raise ArchitectureError(
        f"the output projection of layer {layer} has not {layout.num_heads * layout.head_dim} inputs, which are "
        f"{layout.num_heads} heads of {layout.head_dim}: layers differ in the width of their heads",
        where=source.checkpoint.root,
        remedy="head steering compares heads of one width; other methods work with this model",
    )


def block_norms(columns: HeadColumns, of: Source, minus: Source) -> torch.Tensor:
    """Frobenius norms ‖W_of − W_minus‖ of every head's block, float64 [layers, heads]; reads a block of rows at a time.

    Raises:
        MismatchError: A difference is not finite.
    """
    norms = torch.stack([_squares(projection, columns, of, minus) for projection in columns.projections]).sqrt()
    if not norms.isfinite().all():
        layer = int((~norms.isfinite().all(1)).int().argmax())
        raise MismatchError(f"{of.name!r} − {minus.name!r} is not finite", where=columns.projections[layer].tensor)
    return norms


def _squares(projection: OutputProjection, columns: HeadColumns, of: Source, minus: Source) -> torch.Tensor:
    inputs = torch.zeros(columns.heads * columns.size, dtype=torch.float64)
    spec = minus.reader.spec(projection.tensor)
    for start, stop in row_blocks(spec):
        a, b = (each.reader.rows(projection.tensor, start, stop).to(torch.float64) for each in (of, minus))
        squares = (a - b).square()
        if projection.transposed:
            inputs[start:stop] = squares.sum(1)
        else:
            inputs += squares.sum(0)
    return inputs.view(columns.heads, columns.size).sum(1)


def selected_norm(norms: torch.Tensor, heads: Collection[Head]) -> float:
    """‖M ⊙ τ‖_F of the blocks of some heads."""
    return math.sqrt(sum(float(norms[head]) ** 2 for head in heads))


def weights_of(columns: HeadColumns, source: Source, heads: Collection[Head]) -> int:
    """Number of weights in the blocks of some heads."""
    rows: Mapping[int, int] = {
        p.layer: source.reader.spec(p.tensor).shape[1 if p.transposed else 0] for p in columns.projections
    }
    return sum(rows[layer] * columns.size for layer, _ in heads)
