"""Exports an edit as a LoRA adapter: one base model in memory, one small adapter per language.

Exact where the update is of low rank by construction: added factors, and differences of LoRA adapters of one base, also
masked by columns, since M ⊙ (B·A) = B·(A·diag(m)) for a mask m of columns. Everything else is approximated by its
truncated singular value decomposition, and the error is stated per tensor and overall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from polysafe.checkpoint.dtypes import torch_dtype
from polysafe.checkpoint.lora import AdaptedCheckpoint, open_reader
from polysafe.checkpoint.output import check_target, lock
from polysafe.checkpoint.roles import Architecture, Kind, Module, TensorRole, classify
from polysafe.checkpoint.source import Checkpoint
from polysafe.edits.adapter import adapter_config, public_origin, write_adapter
from polysafe.edits.edit import Edit
from polysafe.edits.low_rank import LowRank, best_approximation, distance
from polysafe.edits.modules import empty_model, moved, parameter_roles
from polysafe.edits.update import Updates
from polysafe.errors import EditError, OutputError

SCHEMA = 1
DEFAULT_RANK = 64
FACTOR_TYPES = ("F32", "BF16", "F16")
_SHOWN = 8
_STATE_SPACES = frozenset({"mamba", "mixer"})

Advance = Callable[[int, int], None]
"""Told how many tensors are done, of how many."""


@dataclass(frozen=True, slots=True)
class AdaptedModule:
    """A linear layer of the adapter.

    Attributes:
        module: Its name in the running model.
        tensor: The tensor of the checkpoint that the edit changes.
        how: `exact`, or `svd` where the update was approximated.
        rank: Rank of its factors.
        needed: Rank that would lose nothing.
        norm: Frobenius norm of the update.
        relative_error: Frobenius norm of what the stored factors miss, as a share of `norm`; of an exact update this is
            the rounding of the factors to their storage type.
    """

    module: str
    tensor: str
    how: Literal["exact", "svd"]
    rank: int
    needed: int
    norm: float
    relative_error: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A changed tensor that a LoRA adapter cannot express, why, and the Frobenius norm of its change."""

    tensor: str
    reason: str
    norm: float


@dataclass(frozen=True, slots=True)
class Export:
    """An adapter that was written.

    Attributes:
        output: Its folder.
        edit: SHA-256 of the edit it was made from.
        size: Size of its weights in bytes.
        dtype: Storage type of its factors.
        modules: What it adapts.
        left_out: What the edit changes and the adapter does not.
        unchanged: Tensors that the edit names but leaves as they are.
        dropped: Source -> tensors that this source adapts and the edit does not take over.
        notes: Findings worth telling.
    """

    output: Path
    edit: str
    size: int
    dtype: str
    modules: tuple[AdaptedModule, ...]
    left_out: tuple[LeftOut, ...]
    unchanged: tuple[str, ...]
    dropped: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def relative_error(self) -> float:
        """What the factors miss of the adapted tensors' update, as a share of its Frobenius norm."""
        missed = math.hypot(*(module.norm * module.relative_error for module in self.modules))
        return missed / math.hypot(*(module.norm for module in self.modules))

    @property
    def left_out_share(self) -> float:
        """Frobenius norm of what is left out, as a share of that of the whole edit."""
        left = math.hypot(0.0, *(part.norm for part in self.left_out))
        return left / math.hypot(left, *(module.norm for module in self.modules))

    def to_json(self) -> dict[str, Any]:
        """The export as plain data."""
        return {"output": str(self.output), "size": self.size, **self.record()}

    def record(self) -> dict[str, Any]:
        """What was done, without where: this goes into the adapter's folder."""
        return {
            "polysafe_export": SCHEMA,
            "edit": self.edit,
            "dtype": self.dtype,
            "relative_error": self.relative_error,
            "left_out_share": self.left_out_share,
            "modules": [asdict(module) for module in self.modules],
            "left_out": [asdict(part) for part in self.left_out],
            "unchanged": list(self.unchanged),
            "dropped": {name: list(tensors) for name, tensors in self.dropped.items()},
            "notes": list(self.notes),
        }


def export_adapter(
    edit: Edit,
    checkpoints: Mapping[str, Checkpoint],
    output: Path,
    *,
    rank: int | None = None,
    partial: bool = False,
    dtype: str = "F32",
    base_name: str | None = None,
    advance: Advance = lambda _done, _total: None,
) -> Export:
    """Writes the LoRA adapter that turns the model an edit starts from into the model that it makes.

    Memory holds one tensor and the factors, which is what the result weighs.

    Args:
        edit: The edit.
        checkpoints: A checkpoint for each of its sources; an adapter where the source was one.
        output: The new folder.
        rank: Largest rank of a module. By default exact updates keep theirs and others get at most `DEFAULT_RANK`.
        partial: Leave out changed tensors that an adapter cannot express (norms, biases, embeddings) instead of
            refusing.
        dtype: Storage type of the factors, one of `FACTOR_TYPES`.
        base_name: Name of the base model for the adapter's config; by default its hub id, and none for a local folder.
        advance: Told about progress.

    Raises:
        EditError: The edit changes what an adapter cannot express, changes nothing, starts from an adapter itself, or
            its update does not fit the storage type; or an option has no meaning.
        MismatchError: The checkpoints do not fit the edit.
        OutputError: The output exists or cannot be written.
    """
    _check_options(edit, checkpoints, rank, dtype)
    target = Path(output).absolute()
    _check_output(target, checkpoints)
    with lock(target), ExitStack() as stack:
        readers = {name: stack.enter_context(open_reader(checkpoints[name])) for name in edit.sources}
        job = _Job(edit, checkpoints, Updates(edit, checkpoints, readers), rank, dtype)
        left_out = job.judge(partial=partial)
        modules, factors = job.adapt(left_out, advance)
        for name in edit.sources:
            checkpoints[name].check_unchanged()
        export = Export(
            target, edit.sha256, 0, dtype, modules, left_out, tuple(job.unchanged), job.dropped(), tuple(job.notes())
        )
        known = public_origin(edit.sources[edit.start].origin)
        base, revision = known if base_name is None else (base_name, None)
        ranks = {module.module: module.rank for module in modules}
        config = adapter_config(ranks, transposed=job.transposed, base=base, revision=revision)
        size = write_adapter(target, edit, config, factors, export.record(), dtype)
    return replace(export, size=size)


class _Job:
    """One export: which tensors can be adapted, and their factors."""

    def __init__(
        self, edit: Edit, checkpoints: Mapping[str, Checkpoint], updates: Updates, rank: int | None, dtype: str
    ) -> None:
        self._edit = edit
        self._checkpoints = checkpoints
        self._start = checkpoints[edit.start]
        self._architecture = classify(self._start)
        self._running = _running(self._start)
        self._updates = updates
        self._rank = rank
        self._dtype = dtype
        self.unchanged: list[str] = []
        self._linear: list[str] = []

    @property
    def transposed(self) -> bool:
        """Whether adapted weights are stored input × output."""
        return any(self._architecture.roles[tensor].transposed for tensor in self._linear)

    def judge(self, *, partial: bool) -> tuple[LeftOut, ...]:
        """Sorts the tensors that the edit touches, and returns those that change and cannot be adapted.

        Raises:
            EditError: There are some, and leaving them out was not asked for.
        """
        left_out = []
        roles = self._architecture.roles
        of_experts = {role.projection for role in roles.values() if role.expert is not None}
        for tensor in self._edit.touched:
            reason = _obstacle(roles[tensor], self._start.tensors[tensor].shape, tensor, of_experts)
            if reason is None:
                self._linear.append(tensor)
            elif norm := _finite(self._updates.norm(tensor), tensor):
                left_out.append(LeftOut(tensor, reason, norm))
            else:
                self.unchanged.append(tensor)
        if left_out and not partial:
            raise _inexpressible(left_out)
        return tuple(left_out)

    def adapt(
        self, left_out: Sequence[LeftOut], advance: Advance
    ) -> tuple[tuple[AdaptedModule, ...], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
        """The adapted modules and their factors A and B.

        Raises:
            EditError: There is none, or factors do not fit their storage type.
        """
        modules: list[AdaptedModule] = []
        factors: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for done, tensor in enumerate(self._linear):
            advance(done, len(self._linear))
            found = self._adapt(tensor)
            if found is None:
                self.unchanged.append(tensor)
                continue
            module, stored = found
            transposed = self._architecture.roles[tensor].transposed
            modules.append(module)
            factors[module.module] = (stored[0].mT, stored[1].mT) if transposed else (stored[1], stored[0])
        advance(len(self._linear), len(self._linear))
        if not modules:
            why = f" but {left_out[0].tensor} ({left_out[0].reason})" if left_out else ""
            raise EditError(
                f"the edit changes no linear layer{why}, so there is nothing for an adapter to hold",
                remedy="write the edited model instead: `polysafe edit apply`",
            )
        return tuple(modules), factors

    def dropped(self) -> dict[str, tuple[str, ...]]:
        """Tensors that a source adapts and the edit leaves alone, by source."""
        touched = set(self._edit.touched)
        parts = {
            name: tuple(tensor for tensor in checkpoint.scales if tensor not in touched)
            for name, checkpoint in self._checkpoints.items()
            if isinstance(checkpoint, AdaptedCheckpoint)
        }
        return {name: tensors for name, tensors in parts.items() if tensors}

    def notes(self) -> list[str]:
        """Findings worth telling."""
        notes = []
        if self._edit.dtype is not None:
            notes.append(
                f"the edit also stores every tensor as {self._edit.dtype}; an adapter leaves the base as it is"
            )
        if self._running is None:
            notes.append("modules are called as in the files: transformers, which could rename them, has no such model")
        return notes

    def _adapt(self, tensor: str) -> tuple[AdaptedModule, tuple[torch.Tensor, torch.Tensor]] | None:
        """The module of a tensor, and the stored left and right factor of its two-dimensional view."""
        exact = self._updates.factors(tensor)
        if exact is None:
            dense = self._updates.dense(tensor)
            _finite(float(torch.linalg.vector_norm(dense, math.inf)), tensor)  # no decomposition of anything else
            kept, needed = best_approximation(dense, self._rank or DEFAULT_RANK)
            norm = float(torch.linalg.matrix_norm(dense, dtype=torch.float64))
        else:
            norm, needed = exact.norm(), min(exact.rank, *exact.shape)
            cap = min(self._rank or needed, needed)
            kept = exact if exact.rank <= cap else exact.truncated(cap).pruned()
        if _finite(norm, tensor) == 0:
            return None
        stored = self._stored(kept.left, tensor), self._stored(kept.right, tensor)
        rounded = LowRank(stored[0].to(torch.float64), stored[1].to(torch.float64))
        missed = distance(dense, rounded) if exact is None else (exact + rounded.times(-1.0)).norm()
        how: Literal["exact", "svd"] = "svd" if exact is None or kept.rank < needed else "exact"
        name = moved(tensor, self._architecture, self._running or self._architecture).removesuffix(".weight")
        return AdaptedModule(name, tensor, how, kept.rank, needed, norm, missed / norm), stored

    def _stored(self, factor: torch.Tensor, tensor: str) -> torch.Tensor:
        stored = factor.to(torch_dtype(self._dtype))
        if not bool(stored.isfinite().all()):
            raise EditError(f"the update does not fit {self._dtype}", where=tensor, remedy="choose a wider type")
        return stored


def _running(checkpoint: Checkpoint) -> Architecture | None:
    """The roles of the running model's parameters; None where transformers is not there, or cannot make the model."""
    try:
        return parameter_roles(empty_model(checkpoint), checkpoint)
    except Exception:  # noqa: BLE001 — its classes check what config.json says, each in its own way
        return None


def _finite(size: float, tensor: str) -> float:
    if not math.isfinite(size):
        raise EditError(
            "the update is too large to be computed", where=tensor, remedy="see `polysafe edit explain` for its factors"
        )
    return size


def _obstacle(role: TensorRole, shape: tuple[int, ...], tensor: str, of_experts: Collection[str | None]) -> str | None:
    """Why a tensor is not the weight of a linear layer that PEFT adapts by its name; None if it is one.

    Args:
        role: Its role.
        shape: Its shape.
        tensor: Its name.
        of_experts: Projections of experts that are stored one by one. They run as one tensor, and PEFT takes every
            module of such a name in an MLP for it.
    """
    found = {
        "bias": role.bias,
        role.kind.value.replace("_", " "): role.kind is not Kind.PROJECTION,
        "experts, which run as one tensor": role.experts is not None or role.expert is not None,
        "not a matrix": len(shape) != 2 or not tensor.endswith(".weight"),
        "a state space's, which PEFT refuses": role.projection == "mixed"
        and not _STATE_SPACES.isdisjoint(tensor.split(".")),
        "named like an expert's, which PEFT takes it for": role.module is Module.MLP and role.projection in of_experts,
    }
    return next((reason for reason, holds in found.items() if holds), None)


def _inexpressible(parts: list[LeftOut]) -> EditError:
    listed = [f"{part.tensor} ({part.reason})" for part in parts[:_SHOWN]]
    more = [f"and {len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return EditError(
        f"the edit changes {len(parts)} tensors that a LoRA adapter cannot express: {', '.join([*listed, *more])}",
        remedy="leave them out with `--partial`, or write the edited model with `polysafe edit apply`",
    )


def _check_options(edit: Edit, checkpoints: Mapping[str, Checkpoint], rank: int | None, dtype: str) -> None:
    if rank is not None and rank < 1:
        raise EditError(f"a rank of {rank} holds nothing", remedy="choose a rank of at least 1")
    if dtype not in FACTOR_TYPES:
        raise EditError(f"{dtype!r} is no type for factors", remedy=f"choose one of {', '.join(FACTOR_TYPES)}")
    if missing := [name for name in edit.sources if name not in checkpoints]:
        raise EditError(f"no checkpoint is given for its source {missing[0]!r}")
    if isinstance(checkpoints[edit.start], AdaptedCheckpoint):
        raise EditError(
            f"the edit starts from {edit.start!r}, which is an adapter itself",
            remedy="merge it into its base model first (PEFT: `merge_and_unload()`)",
        )


def _check_output(target: Path, checkpoints: Mapping[str, Checkpoint]) -> None:
    check_target(target, [folder for checkpoint in checkpoints.values() for folder in checkpoint.folders])
    if target.is_dir() and any(target.iterdir()):
        raise OutputError("holds an output already", where=target, remedy="choose a new folder, or remove this one")
