"""Parts of a model that one decision is about: layers, the modules of a layer, or their projections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from polysafe.checkpoint.roles import Architecture, Kind, Module, TensorRole
from polysafe.errors import ArchitectureError

Granularity = Literal["layer", "module", "projection"]


@dataclass(frozen=True, slots=True, order=True)
class BlockKey:
    """What one decision is about: a whole layer (`module` is empty), one module of it, or one projection of that."""

    layer: int
    module: Module | Literal[""] = ""
    projection: str = ""

    @property
    def name(self) -> str:
        """For example `layers.3`, `layers.3.attention` or `layers.3.attention.q`."""
        return f"layers.{self.layer}.{self.module}.{self.projection}".rstrip(".")


def blocks_of(architecture: Architecture, granularity: Granularity) -> Mapping[BlockKey, tuple[str, ...]]:
    """The tensors of every block, in order of depth, attention before MLP.

    A layer has all its tensors, a module those inside it, without the norms around it; a projection has its weight and
    its bias, and in a mixture those of all experts.

    Raises:
        ArchitectureError: A layer has matrices of no block that is known: they would be left behind without a word.
    """
    if granularity != "layer" and architecture.unplaced:
        raise ArchitectureError(
            f"{len(architecture.unplaced)} matrices of layers belong to no attention or MLP that is recognised, "
            f"the first is {architecture.unplaced[0]!r}",
            remedy="decide by whole layers (`granularity: layer`), or open an issue with the tensor names",
        )
    found: dict[BlockKey, list[str]] = {}
    for name, role in architecture.roles.items():
        key = None if role.kind is Kind.BUFFER else _key(role, granularity)
        if key is not None:
            found.setdefault(key, []).append(name)
    return {key: tuple(found[key]) for key in sorted(found)}


def _key(role: TensorRole, granularity: Granularity) -> BlockKey | None:
    if role.layer is None:
        return None
    if granularity == "layer":
        return BlockKey(role.layer)
    if role.module is None:
        return None
    if granularity == "module":
        return BlockKey(role.layer, role.module)
    return None if role.projection is None else BlockKey(role.layer, role.module, role.projection)
