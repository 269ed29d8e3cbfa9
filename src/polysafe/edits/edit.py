"""`Edit`: what a method decided, as a value that can be saved, explained, applied, stacked and undone."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter

from polysafe.checkpoint.dtypes import EDITABLE
from polysafe.checkpoint.output import RECORDS
from polysafe.edits.operations import AddDelta, AddLowRank, Copy, Operation
from polysafe.errors import EditError
from polysafe.files.atomic import json_bytes, write_bytes_atomic
from polysafe.files.json_file import Format
from polysafe.files.plain import TooLargeError, read_plain

if TYPE_CHECKING:
    import torch

FORMAT = Format("edit file", key="polysafe_edit", error=EditError, largest=1 << 28)
JSON_FILE = "edit.json"
TENSOR_FILE = "edit.safetensors"
_FACTORS = ("rows", "a", "b")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Decision(_Value):
    """What was decided for one block of the model, and on what grounds.

    Attributes:
        block: For example `layers.3`, `layers.3.attention`, `embedding`, `final_norm`, `head`.
        layer: Index of the layer, None outside the layers.
        module: `attention` or `mlp`, None for a whole layer or outside.
        choice: For a swap `safety`, `language` or `blend`; other methods use their own words.
        safety_weight: Share of the safety expert in the result, 0 … 1.
        score: The number that the rule looked at, None where the choice is fixed.
        detail: The numbers behind the score.
        borderline: Whether rounding of the inputs could have changed the choice.
    """

    block: str
    layer: int | None = None
    module: str | None = None
    choice: str
    safety_weight: float
    score: float | None = None
    detail: dict[str, float] = {}
    borderline: bool = False


class Provenance(_Value):
    """Where an edit, or a part of a stacked edit, comes from.

    Attributes:
        method: Versioned name of the method.
        label: Name of the method in results, for example `layer_swap.module`.
        options: Every option of the method, defaults included.
        decisions: What it decided.
        notes: Findings worth telling.
        warnings: Findings that should be read before relying on the result.
        evidence: Numbers behind the decisions.
    """

    method: str
    label: str
    options: dict[str, Any] = {}
    decisions: tuple[Decision, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    evidence: dict[str, Any] = {}


class SourceRecord(_Value):
    """Which model a source name stood for.

    Attributes:
        origin: As the user named it.
        files: SHA-256 of every weight file; empty while the files have not been hashed.
    """

    origin: str
    files: dict[str, str] = {}


class Edit(_Value):
    """An ordered list of tensor operations plus where they came from.

    The operations of a tensor are applied in order to the tensor of `start`; a tensor without operations is copied.
    Where an operation names `start`, it means the value so far, so that edits stack.

    Attributes:
        start: The source that the edit starts from.
        steps: Operations per tensor.
        sources: What the source names stand for.
        provenance: One entry for each method that contributed.
        dtype: Storage type of the floating-point tensors of the result, None to keep that of `start`.
    """

    start: str
    steps: dict[str, tuple[Operation, ...]]
    sources: dict[str, SourceRecord]
    provenance: tuple[Provenance, ...] = ()
    dtype: str | None = None

    def model_post_init(self, _context: object, /) -> None:
        """Every name that an operation uses must be a source.

        Raises:
            EditError: One is not, the storage type is none that arithmetic is defined on, or options or evidence hold
                NaN or infinity, which no file can say.
        """
        used = {self.start, *(source for _, op in self.operations() for source in op.sources)}
        if missing := sorted(used - set(self.sources)):
            raise EditError(f"the operations name {missing[0]!r}, which is not among the sources of the edit")
        if self.dtype is not None and self.dtype not in EDITABLE:
            raise EditError(f"the storage type {self.dtype!r} is not one of {', '.join(sorted(EDITABLE))}")
        for index, part in enumerate(self.provenance):
            told = {"options": part.options, "evidence": part.evidence}
            if (found := next(_infinite(told, f"provenance[{index}]"), None)) is not None:
                raise EditError("is no finite number", where=found, remedy="leave it out, or give None")

    def operations(self) -> Iterator[tuple[str, Operation]]:
        """Every operation with the tensor it belongs to."""
        for tensor, operations in self.steps.items():
            for operation in operations:
                yield tensor, operation

    @property
    def touched(self) -> tuple[str, ...]:
        """Tensors whose bytes may differ from those of `start`."""
        return tuple(
            tensor
            for tensor, operations in self.steps.items()
            if any(op != Copy(source=self.start) for op in operations)
        )

    def reads(self, tensor: str) -> tuple[str, ...]:
        """The sources that a tensor of the result is read from, once for each time it is read.

        The tensor of `start` is read at most once, and only if the first operation builds on it: later ones see the
        value so far in its place.
        """
        operations = self.steps.get(tensor, ())
        named = [source for operation in operations for source in operation.sources]
        first = operations[0] if operations else Copy(source=self.start)
        builds_on_start = isinstance(first, AddLowRank | AddDelta) or self.start in first.sources
        return (*([self.start] if builds_on_start else []), *(source for source in named if source != self.start))

    def then(self, other: Edit) -> Edit:
        """Both edits in one: `other` sees the result of this one, and there is one rounding at the end.

        Raises:
            EditError: They change different models, or a name stands for different models.
        """
        if other.start != self.start:
            raise EditError(
                f"an edit that starts from {other.start!r} cannot follow one that produces a new {self.start!r}",
                remedy="let every edit of a recipe change the same model",
            )
        for name in self.sources.keys() & other.sources.keys():
            if self.sources[name].origin != other.sources[name].origin:
                raise EditError(f"the source {name!r} stands for different models in the two edits")
        names = dict.fromkeys((*self.steps, *other.steps))
        return Edit(
            start=self.start,
            steps={name: self.steps.get(name, ()) + other.steps.get(name, ()) for name in names},
            sources=self.sources | other.sources,
            provenance=self.provenance + other.provenance,
            dtype=other.dtype or self.dtype,
        )

    def undo(self) -> Edit:
        """The edit that gives back the original: the touched tensors come from it, the others from the edited model.

        Raises:
            EditError: The edit changed the storage type, so that no tensor of the result is one of the original.
        """
        if self.dtype is not None:
            raise EditError(
                f"the edit rounded every tensor to {self.dtype}, so nothing of the original is left to build on",
                remedy="use the original checkpoint itself",
            )
        return Edit(
            start="edited",
            steps={tensor: (Copy(source="original"),) for tensor in self.touched},
            sources={"edited": SourceRecord(origin="edited"), "original": self.sources[self.start]},
            provenance=(Provenance(method="undo.v1", label="undo", evidence={"edit": self.sha256}),),
        )

    @cached_property
    def _serialised(self) -> tuple[bytes, bytes | None]:
        factors = {f"{t}#{i}.{k}": v for t, i, k, v in self._factors()}
        tensors = _save_tensors(factors) if factors else None
        content = {
            **FORMAT.head,
            "factors_sha256": hashlib.sha256(tensors).hexdigest() if tensors is not None else None,
            **self.model_dump(mode="json", exclude={"steps"}),
            "steps": {name: [_operation_json(op) for op in ops] for name, ops in self.steps.items()},
        }
        return json_bytes(content), tensors

    def _factors(self) -> Iterator[tuple[str, int, str, torch.Tensor]]:
        for tensor, operations in self.steps.items():
            for index, operation in enumerate(operations):
                if isinstance(operation, AddLowRank):
                    for key in _FACTORS:
                        yield tensor, index, key, getattr(operation, key)

    @property
    def sha256(self) -> str:
        """Hash of the edit file; it covers the factors through their own hash."""
        return hashlib.sha256(self._serialised[0]).hexdigest()

    @property
    def nbytes(self) -> int:
        """Size of the edit on disk in bytes."""
        text, tensors = self._serialised
        return len(text) + len(tensors or b"")

    def save(self, directory: Path | str) -> Path:
        """Writes `edit.json`, and `edit.safetensors` if there are factors; returns the path of the former."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        text, tensors = self._serialised
        if tensors is not None:
            write_bytes_atomic(folder / TENSOR_FILE, tensors)
        write_bytes_atomic(folder / JSON_FILE, text)
        return folder / JSON_FILE

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Reads an edit from its folder or its `edit.json`.

        Raises:
            EditError: A file is missing, damaged, or of a newer schema.
        """
        file = Path(path)
        if (inner := file / RECORDS / JSON_FILE).is_file() and not (file / JSON_FILE).exists():
            raise EditError("is a model, not an edit", where=file, remedy=f"its edit is in {inner.parent}")
        file = file / JSON_FILE if file.is_dir() else file
        content = FORMAT.read(file)
        expected = content.pop("factors_sha256", None)
        factors = _load_tensors(file.with_name(TENSOR_FILE), expected) if expected else {}

        def shaped(content: dict[str, Any]) -> dict[str, Any]:
            steps = {
                tensor: tuple(_operation(entry, tensor, i, factors) for i, entry in enumerate(entries))
                for tensor, entries in content["steps"].items()
            }
            return {**content, "steps": steps}

        try:
            return FORMAT.built(cls.model_validate, FORMAT.built(shaped, content, file), file)
        except EditError as error:
            raise EditError(error.problem, where=file, remedy=error.remedy) from error


def _infinite(value: object, place: str) -> Iterator[str]:
    """The places of numbers in a value that are none."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _infinite(each, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _infinite(each, f"{place}[{index}]")


_OPERATION: TypeAdapter[Operation] = TypeAdapter(Operation)


def _operation_json(operation: Operation) -> dict[str, Any]:
    if isinstance(operation, AddLowRank):  # the factors are in the tensor file, under this tensor's name
        return {"op": operation.op, "shape": [*operation.a.shape, operation.b.shape[0]]}
    return operation.model_dump(mode="json")


def _operation(entry: dict[str, Any], tensor: str, index: int, factors: Mapping[str, torch.Tensor]) -> Operation:
    if entry.get("op") == "add_low_rank":
        entry = {"op": "add_low_rank", **{key: factors[f"{tensor}#{index}.{key}"] for key in _FACTORS}}
    return _OPERATION.validate_python(entry)


def _save_tensors(tensors: dict[str, torch.Tensor]) -> bytes:
    import torch
    from safetensors.torch import save

    # Clones, because the format refuses tensors that share memory, as the parts of one decomposition do.
    return save({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()})


def _load_tensors(path: Path, expected: str) -> dict[str, torch.Tensor]:
    import psutil
    from safetensors import SafetensorError
    from safetensors.torch import load

    most = psutil.virtual_memory().available // 2  # they are there twice while they are loaded
    try:
        data = read_plain(path, most)
    except TooLargeError as error:
        raise EditError(f"is larger than the {most} bytes of memory that there is for it", where=path) from error
    except OSError as error:
        raise EditError(f"cannot be read: {error.strerror}", where=path) from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise EditError(
            f"does not belong to the {JSON_FILE} beside it, or was damaged (its SHA-256 differs)",
            where=path,
            remedy=f"keep {JSON_FILE} and {os.fspath(TENSOR_FILE)} of one edit together",
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise EditError(f"is not a safetensors file: {error}", where=path) from error
