"""LoRA adapters as checkpoints: a base model plus small factors, merged row by row while it is read.

An adapter folder (PEFT's `adapter_config.json` and `adapter_model.safetensors`) stands for the model that merging it
would give: W = W_base + s·B·A with s = α/r, or α/√r where the adapter says so (Hu et al., 2021; Kalajdzievski, 2023).
Norms of the update come from the factors, without the rounding that merged 16-bit weights carry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.checkpoint.adapter_config import CONFIG, read_adapter_config
from polysafe.checkpoint.dtypes import EDITABLE
from polysafe.checkpoint.header import Header, TensorSpec, read_header
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.source import INDEX, SINGLE, Checkpoint, file_inside
from polysafe.checkpoint.values import is_finite
from polysafe.errors import CheckpointError, MismatchError

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight$")


@dataclass(frozen=True)
class AdaptedCheckpoint(Checkpoint):
    """A base model with a LoRA adapter on it. Folder, config and tensors are the base's; the files are of both.

    Attributes:
        base: The model that the adapter belongs to.
        adapter: Header of the adapter's weights.
        scales: Factor s of every adapted tensor.
    """

    base: Checkpoint = field(kw_only=True)
    adapter: Header = field(kw_only=True)
    scales: Mapping[str, float] = field(kw_only=True)

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """The tensors of the merged model: those of the base."""
        return self.base.tensors


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no full checkpoint."""
    return (folder / CONFIG).exists() and not any((folder / name).exists() for name in (SINGLE, INDEX))


def open_adapter(root: Path | str, base: Checkpoint, *, origin: str | None = None) -> AdaptedCheckpoint:
    """Opens an adapter folder on top of its base model.

    Raises:
        CheckpointError: A file is missing or damaged, or the adapter is of a kind that is no plain LoRA.
        MismatchError: The adapter does not fit the base.
    """
    folder = Path(root).expanduser().resolve()
    config = read_adapter_config(folder)
    header = read_header(file_inside(folder, WEIGHTS))
    scales = config.scales(_ranks(header, base))
    return AdaptedCheckpoint(
        root=base.root,
        origin=origin if origin is not None else str(root),
        headers=(*base.headers, header),
        config=base.config,
        notes=(*base.notes, f"LoRA adapter on {len(scales)} tensors of {base.origin}", *config.notes),
        base=base,
        adapter=header,
        scales=scales,
    )


class AdaptedReader(CheckpointReader):
    """A `TensorReader` over an adapted checkpoint: rows are merged in float32 or better and rounded once."""

    def __init__(self, checkpoint: AdaptedCheckpoint, advance: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(checkpoint.base, advance)
        self._scales = checkpoint.scales
        self._adapter = CheckpointReader(_factors(checkpoint))

    def close(self) -> None:
        """Closes the files."""
        super().close()
        self._adapter.close()

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start:stop` of the merged tensor, shape [stop - start, columns], in the base's storage type.

        Raises:
            CheckpointError: A merged number is not finite in that type.
        """
        import torch

        stored = super().rows(name, start, stop)
        if name not in self._scales:
            return stored
        exact = stored.to(torch.float64) + self.update(name, start, stop)
        merged = exact.to(stored.dtype)
        if not is_finite(merged):
            raise self._not_finite(name, exact, merged)
        return merged

    def _not_finite(self, name: str, exact: torch.Tensor, merged: torch.Tensor) -> CheckpointError:
        worst = float(exact[~merged.isfinite()][0])
        return CheckpointError(
            f"{name!r} with the adapter merged would hold {worst:g}, which {self.spec(name).dtype} does not",
            where=self._adapter.checkpoint.headers[0].file,
            remedy="base or adapter is broken, or they do not belong together",
        )

    def is_stored(self, name: str) -> bool:
        """Whether the adapter leaves a tensor as it is."""
        return name not in self._scales

    def update(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows `start:stop` of what the adapter adds, s·B·A in float64, shape [stop - start, columns]."""
        import torch

        if name not in self._scales:
            return torch.zeros(stop - start, self.spec(name).columns, dtype=torch.float64)
        a, b = self.factors(name)
        return self._scales[name] * (b[start:stop] @ a)

    def is_on(self, reader: object) -> bool:
        """Whether another reader reads the very files that this adapter is on."""
        mine = {spec.file for spec in self.checkpoint.tensors.values()}
        return type(reader) is CheckpointReader and mine == {spec.file for spec in reader.checkpoint.tensors.values()}

    def whole(self, name: str) -> torch.Tensor:
        """The whole merged tensor."""
        spec = self.spec(name)
        return self.rows(name, 0, spec.rows).view(spec.shape)

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors A [r, columns] and B [rows, r] of a tensor's update in float64, without the scale."""
        import torch

        module = name.removesuffix(".weight")
        a, b = (self._adapter.whole(f"{module}.lora_{side}") for side in "AB")
        return a.to(torch.float64), b.to(torch.float64)

    def update_norm(self, name: str) -> float:
        """Frobenius norm of the update of a tensor, s·√tr((BᵀB)(AAᵀ)); no product of full size is formed."""
        if name not in self._scales:
            return 0.0
        a, b = self.factors(name)
        return abs(self._scales[name]) * math.sqrt(max(0.0, float(((b.T @ b) * (a @ a.T)).sum())))


def open_reader(checkpoint: Checkpoint, advance: Callable[[int], None] = lambda _: None) -> CheckpointReader:
    """The reader that fits a checkpoint; `advance` is told the number of bytes of every read."""
    if isinstance(checkpoint, AdaptedCheckpoint):
        return AdaptedReader(checkpoint, advance)
    return CheckpointReader(checkpoint, advance)


def _factors(checkpoint: AdaptedCheckpoint) -> Checkpoint:
    """The adapter's own tensors as a checkpoint, under the names `<module>.lora_A` and `<module>.lora_B`."""
    named = {}
    for name, spec in checkpoint.adapter.tensors.items():
        found = _FACTOR.match(name.removeprefix(_PREFIX))
        if found:
            short = f"{found['module']}.lora_{found['side']}"
            named[short] = replace(spec, name=short)
    header = replace(checkpoint.adapter, tensors=named)
    return Checkpoint(checkpoint.adapter.file.parent, checkpoint.origin, (header,), {})


def _ranks(header: Header, base: Checkpoint) -> dict[str, int]:
    """Rank of the update of every adapted tensor, checked against the base's shapes."""
    shapes: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in header.tensors.items():
        found = _FACTOR.match(name.removeprefix(_PREFIX))
        if found is None:
            raise CheckpointError(f"tensor {name!r} is no LoRA factor of a linear layer", where=header.file)
        if spec.dtype not in EDITABLE:
            raise CheckpointError(f"tensor {name!r} is stored as {spec.dtype}, no real numbers", where=header.file)
        sides = shapes.setdefault(f"{found['module']}.weight", {})
        if found["side"] in sides:
            raise CheckpointError(
                f"two tensors stand for factor {found['side']} of {found['module']!r}, one of them {name!r}",
                where=header.file,
                remedy="the file holds several adapters; save the one that is meant alone",
            )
        sides[found["side"]] = spec
    return {tensor: _rank(tensor, sides, header.file, base) for tensor, sides in shapes.items()}


def _rank(tensor: str, sides: Mapping[str, TensorSpec], file: Path, base: Checkpoint) -> int:
    if set(sides) != {"A", "B"}:
        raise CheckpointError(f"only one of the two factors of {tensor!r} is there", where=file)
    target = base.tensors.get(tensor)
    a, b = sides["A"].shape, sides["B"].shape
    if target is None or len(a) != 2 or len(b) != 2 or (b[0], a[1]) != target.shape or a[0] != b[1] or not a[0]:
        wanted = "no such tensor" if target is None else f"shape {list(target.shape)}"
        raise MismatchError(
            f"factors {list(b)} x {list(a)} do not fit {tensor!r}: the base has {wanted}",
            where=file,
            remedy="name the base model that the adapter was trained on",
        )
    return a[0]
