"""Which tensor goes into which output file, decided before a byte is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polysafe.checkpoint.header import TensorSpec, encode_header
from polysafe.checkpoint.source import INDEX, SINGLE
from polysafe.files.atomic import json_bytes


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file: its header is known, its tensors follow each other without gaps.

    Attributes:
        name: File name.
        header: The bytes before the first tensor.
        tensors: The tensors in file order; of a spec only name, type, shape and size count here.
    """

    name: str
    header: bytes
    tensors: tuple[TensorSpec, ...]

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        return len(self.header) + sum(spec.nbytes for spec in self.tensors)


@dataclass(frozen=True, slots=True)
class Layout:
    """All output files that hold tensors, with the index if there are several."""

    shards: tuple[Shard, ...]

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)

    def index(self) -> tuple[str, bytes] | None:
        """Name and content of the index, in the form of the Hugging Face libraries; None for a single file."""
        if len(self.shards) == 1:
            return None
        weight_map = {spec.name: shard.name for shard in self.shards for spec in shard.tensors}
        total = sum(spec.nbytes for shard in self.shards for spec in shard.tensors)
        content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        return INDEX, json_bytes(content)


def plan_layout(specs: Sequence[TensorSpec], shard_size: int) -> Layout:
    """Fills shards of at most `shard_size` bytes of tensors in the given order; a larger tensor gets its own."""
    groups: list[list[TensorSpec]] = [[]]
    used = 0
    for spec in specs:
        if groups[-1] and used + spec.nbytes > shard_size:
            groups.append([])
            used = 0
        groups[-1].append(spec)
        used += spec.nbytes
    names = _shard_names(len(groups))
    return Layout(tuple(_shard(name, group) for name, group in zip(names, groups, strict=True)))


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return [SINGLE]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _shard(name: str, group: list[TensorSpec]) -> Shard:
    return Shard(name, encode_header((spec.name, spec.dtype, spec.shape) for spec in group), tuple(group))
