"""The model in a folder, to be asked and not edited; quantised ones as well.

What is released is what has to be measured, and an edit may not survive that its result is quantised. Codes are nothing
that could be edited, so transformers loads such a folder itself, with the library of its format; formats are those
whose library fetches nothing when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from polysafe.checkpoint.dtypes import float_dtype
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.quantised import LIBRARIES, Quantisation, quantisation
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import Checkpoint, open_checkpoint
from polysafe.edits.modules import empty_model, parameter_roles
from polysafe.errors import ArchitectureError, CheckpointError, ResourceError
from polysafe.probe.model import LoadedModel, check_whole, device_named, load_model, quiet, too_large
from polysafe.progress import counted, say

_ADAPTER = "adapter_config.json"


@contextmanager
def opened_model(folder: Path, device: str | None = None, dtype: str | None = None) -> Iterator[LoadedModel]:
    """The model in a folder, whose files stay open meanwhile.

    Args:
        folder: The folder.
        device: As for `load_model`.
        dtype: Type that it is computed in, by the name that files use (`BF16`); as for `load_model` by default. What a
            quantised model does with its codes is its own config's business.

    Raises:
        ResourceError: The library of a quantised model is not installed, or cannot run it on that device.
        PolysafeError: As for opening and loading it.
    """
    computed = None if dtype is None else float_dtype(dtype)
    checkpoint = open_checkpoint(folder)
    found = quantisation(checkpoint)
    with CheckpointReader(checkpoint) as reader:
        if found is None or found.method not in LIBRARIES or not found.settings:
            source = Source(folder.name or str(folder), checkpoint, classify(checkpoint), reader)
            yield load_model(source, device, dtype=computed)
        else:
            yield _load(checkpoint, reader, found, device_named(device), computed)


def _load(
    checkpoint: Checkpoint,
    reader: CheckpointReader,
    found: Quantisation,
    device: torch.device,
    dtype: torch.dtype | None,
) -> LoadedModel:
    for package in LIBRARIES[found.method]:
        import_module(package)  # what brings it is said wherever a package is missing
    if (checkpoint.root / _ADAPTER).exists():
        raise CheckpointError(
            "is a quantised model with an adapter", where=checkpoint.root, remedy="remove one of both"
        )
    advance = counted(f"loading {checkpoint.root.name}", 1)
    with quiet():
        empty = empty_model(checkpoint)
        roles = parameter_roles(empty, checkpoint)
        model = _from_folder(type(empty), checkpoint, device, dtype)
    advance()
    say(f"{checkpoint.root.name} is quantised ({found.label}); it is asked as transformers loads it")
    return LoadedModel(Source(checkpoint.root.name, checkpoint, roles, reader), model.eval(), roles)


def _from_folder(family: Any, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype | None) -> Any:
    try:
        model, info = family.from_pretrained(
            checkpoint.root,
            dtype=dtype or "auto",
            device_map={"": device},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError as error:
        raise too_large(error) from error
    except (ImportError, RuntimeError) as error:
        raise ResourceError(f"the model cannot be loaded: {error}", where=checkpoint.root) from error
    except Exception as error:  # its classes check what config.json says, each in its own way
        told = f"{type(error).__name__}: {error}"
        raise ArchitectureError(f"transformers cannot load this model: {told:.600}", where=checkpoint.root) from error
    check_whole(checkpoint, info)
    return model
