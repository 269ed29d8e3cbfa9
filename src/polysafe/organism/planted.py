"""Where refusals are planted: a few heads and units of a few layers, so that it is known what an edit should find.

While refusals are taught, these weights alone move. So an edit that puts back what was lost can be asked how many of
them it found, and one that finds none repairs by other means.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from polysafe.organism.model import Network

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Place = tuple[int, int]
"""A layer, and a head or a unit of it."""


class Planting(BaseModel):
    """How much is planted.

    Attributes:
        layers: Number of layers.
        first: First layer that may be one of them.
        heads: Attention heads in each of them.
        units: Units of the MLP in each of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = 3
    first: int = 2
    heads: int = 2
    units: int = 24

    def draw(self, network: Network, seed: int) -> Planted:
        """The places of a seed."""
        rng = Random(f"planted {seed}")  # noqa: S311 (reproducible on purpose)
        layers = sorted(rng.sample(range(self.first, network.layers), self.layers))
        heads = [(layer, head) for layer in layers for head in sorted(rng.sample(range(network.heads), self.heads))]
        units = [
            (layer, unit) for layer in layers for unit in sorted(rng.sample(range(network.intermediate), self.units))
        ]
        return Planted(tuple(heads), tuple(units))


@dataclass(frozen=True)
class Planted:
    """The places of one family.

    Attributes:
        heads: Layer and head.
        units: Layer and unit.
    """

    heads: tuple[Place, ...]
    units: tuple[Place, ...]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that hold them."""
        return tuple(sorted({layer for layer, _ in (*self.heads, *self.units)}))

    def masks(self, model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
        """Name of a weight -> 1 where it may move and 0 elsewhere, in its shape; other weights do not move."""
        return dict(self._masks(model))

    def _masks(self, model: LlamaForCausalLM) -> Iterator[tuple[str, torch.Tensor]]:
        size = model.config.hidden_size // model.config.num_attention_heads
        for layer in self.layers:
            block = f"model.layers.{layer}"
            heads = [head for other, head in self.heads if other == layer]
            columns = [head * size + at for head in heads for at in range(size)]
            units = [unit for other, unit in self.units if other == layer]
            for name in ("q_proj", "k_proj", "v_proj"):
                yield _mask(model, f"{block}.self_attn.{name}.weight", rows=columns)
            yield _mask(model, f"{block}.self_attn.o_proj.weight", columns=columns)
            for name in ("gate_proj", "up_proj"):
                yield _mask(model, f"{block}.mlp.{name}.weight", rows=units)
            yield _mask(model, f"{block}.mlp.down_proj.weight", columns=units)


def _mask(
    model: LlamaForCausalLM, name: str, *, rows: list[int] | None = None, columns: list[int] | None = None
) -> tuple[str, torch.Tensor]:
    mask = torch.zeros_like(model.get_parameter(name))
    if rows is not None:
        mask[rows] = 1
    if columns is not None:
        mask[:, columns] = 1
    return name, mask


class Recovery(NamedTuple):
    """How much of what was planted was found.

    Attributes:
        precision: Share of what was found that was planted; 0 where nothing was found.
        recall: Share of what was planted that was found.
        chance: The precision of as many places drawn at random: the share of all places that was planted.
    """

    precision: float
    recall: float
    chance: float


def recovery(found: Collection[Hashable], planted: Collection[Hashable], places: int) -> Recovery:
    """Compares places that an edit chose with those that were planted.

    Args:
        found: Layers, heads or units that were chosen.
        planted: Those that were planted.
        places: Number of all that there are.
    """
    both = len(set(found) & set(planted))
    return Recovery(both / len(found) if found else 0.0, both / len(planted), len(planted) / places)
