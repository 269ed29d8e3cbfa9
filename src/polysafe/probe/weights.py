"""The tensors of a source as a model is loaded from them, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from polysafe.checkpoint.digest import model_sha256
from polysafe.checkpoint.dtypes import bytes_of
from polysafe.checkpoint.reader import CheckpointReader, TensorReader, row_blocks

if TYPE_CHECKING:
    from polysafe.checkpoint.opened import Source


def changed_tensors(source: Source) -> tuple[str, ...]:
    """Tensors that the reader of a source gives otherwise than the source's own files: behind an edit or an adapter.

    Told by comparing blocks of rows, so that it holds for any reader, however many edits it stands behind.
    """
    if type(source.reader) is CheckpointReader:
        return ()
    with CheckpointReader(source.checkpoint) as files:
        return tuple(name for name in source.reader.names() if not _same(source.reader, files, name))


def load_state(source: Source, changed: Sequence[str]) -> dict[str, torch.Tensor]:
    """All tensors by name: those of the files mapped into memory, the changed ones computed."""
    state: dict[str, torch.Tensor] = {}
    for path in dict.fromkeys(spec.file for spec in source.checkpoint.tensors.values()):
        with safe_open(path, framework="pt") as file:
            state |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — it is no mapping
    for name in changed:
        state[name] = source.reader.whole(name).clone()
    return state


def weights_sha256(source: Source, changed: Sequence[str] | None = None) -> str:
    """Identity of the model behind a source: equal for equal files, config and changes, whatever they are called.

    Args:
        source: The source.
        changed: What `changed_tensors` says of it, if that is known.
    """
    names = changed_tensors(source) if changed is None else changed
    return model_sha256(source.checkpoint, {name: tensor_sha256(source.reader.whole(name)) for name in names})


def _same(reader: TensorReader, files: TensorReader, name: str) -> bool:
    spec = files.spec(name)
    return reader.spec(name).dtype == spec.dtype and all(
        torch.equal(reader.rows(name, *block), files.rows(name, *block)) for block in row_blocks(spec)
    )


def tensor_sha256(tensor: torch.Tensor) -> str:
    """Hash of the bytes of a tensor on the processor."""
    return hashlib.sha256(bytes_of(tensor)).hexdigest()
