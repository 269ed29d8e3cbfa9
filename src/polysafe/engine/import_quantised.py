"""Makes ordinary checkpoint folders of quantised ones."""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from polysafe._version import __version__
from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.dtypes import float_dtype
from polysafe.checkpoint.imported import Imported, is_terms
from polysafe.checkpoint.licence import licence_of
from polysafe.checkpoint.quantised import quantisation, release
from polysafe.checkpoint.quantised.bnb import BitsAndBytes
from polysafe.checkpoint.quantised.compressed import CompressedTensors
from polysafe.checkpoint.quantised.fp8 import CODES, Fp8
from polysafe.checkpoint.quantised.mxfp4 import Mxfp4
from polysafe.checkpoint.quantised.ordinary import Ordinary
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.source import Checkpoint, bytes_up_to, file_inside, open_checkpoint
from polysafe.engine.imports import SHARD_SIZE, Importer, ImportResult, import_to
from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes
from polysafe.progress import Meter, Progress, tell

_FORMATS: dict[str, type[Ordinary]] = {each.format: each for each in (Fp8, Mxfp4, BitsAndBytes, CompressedTensors)}
"""Formats by name. FP8 is told by its weights, too, since many programs write it under names of their own."""
_LARGEST_TERMS = 1 << 20


def import_quantised(
    source: Path | str,
    output: Path | str,
    *,
    dtype: str = "BF16",
    shard_size: int = SHARD_SIZE,
    progress: Progress = tell,
) -> ImportResult:
    """Makes a checkpoint folder with ordinary numbers of a quantised one: FP8, MXFP4, bitsandbytes, compressed-tensors.

    What quantisation lost does not come back. An import that was interrupted goes on when it is called again.

    Args:
        source: The folder.
        output: The new folder.
        dtype: Type that dequantised weights are rounded to: `BF16`, `F16` or `F32`; other tensors stay as they are.
        shard_size: Largest size of an output file in bytes.
        progress: Told what is done.

    Raises:
        CheckpointError: It is no checkpoint, not quantised, in another format, or what its codes mean does not fit.
        ImportError: The library of its format is not installed.
        OutputError: The output exists or cannot be written.
        ResourceError: The disk is too small.
    """
    float_dtype(dtype)
    checkpoint = open_checkpoint(source)
    return import_to(
        output, lambda target: _Quantised(checkpoint, target, dtype, shard_size, progress), [checkpoint.root]
    )


class _Quantised(Importer):
    """From a checkpoint folder with codes."""

    def __init__(self, checkpoint: Checkpoint, target: Path, dtype: str, shard_size: int, progress: Progress) -> None:
        super().__init__(target, dtype, shard_size, progress)
        self._checkpoint = checkpoint

    def _identity(self) -> str:
        stamps = [header.stamp.key for header in self._checkpoint.headers]
        parts = [__version__, "quantised", stamps, self._dtype, self._shard_size]
        return hashlib.sha256(json_bytes(parts)).hexdigest()

    def _convert(self, resumed: bool) -> ImportResult:
        checkpoint = self._checkpoint
        with CheckpointReader(checkpoint) as reader:
            conversion = ordinary(reader, self._dtype)
            size = sum(header.size for header in checkpoint.headers)
            digests = checkpoint_digests(checkpoint, Meter(self._progress, "hashing inputs", size))
            record = Imported(
                format=conversion.format,
                file=checkpoint.root.name,
                sha256=hashlib.sha256(json_bytes(dict(sorted(digests.items())))).hexdigest(),
                size=size,
                architecture=str(checkpoint.text_config.get("model_type", "unknown")),
                types=conversion.types,
                dtype=self._dtype,
                licence=licence_of(checkpoint.root).id,
                terms=tuple(self._terms()),
                libraries={name: version(name) for name in conversion.packages},
                notes=conversion.notes,
            )
            return self._written(conversion, record, digests, resumed, checkpoint.check_unchanged)

    def _terms(self) -> dict[str, bytes]:
        folder = self._checkpoint.root
        names = sorted(path.name for path in folder.iterdir() if is_terms(path.name))
        return {name: bytes_up_to(file_inside(folder, name), _LARGEST_TERMS) for name in names}


def ordinary(reader: CheckpointReader, dtype: str) -> Ordinary:
    """A quantised checkpoint as it will be with ordinary numbers.

    Args:
        reader: The checkpoint, open.
        dtype: Type that dequantised weights are rounded to.

    Raises:
        CheckpointError: It is not quantised, in another format, or what its codes mean does not fit.
    """
    checkpoint = reader.checkpoint
    found = quantisation(checkpoint)
    if found is None:
        raise CheckpointError("is not quantised: it can be used as it is", where=checkpoint.root)
    # Scales in FP8 are those of other formats (NVFP4)
    fp8 = any(spec.dtype in CODES and name.endswith(".weight") for name, spec in checkpoint.tensors.items())
    kind = Fp8 if fp8 else _FORMATS.get(found.method)
    if kind is None:
        raise CheckpointError(
            f"is quantised as {found.label}, which is not dequantised here ({found.told})",
            where=checkpoint.root,
            remedy=f"use {release(checkpoint)}",
        )
    for package in kind.packages:
        import_module(package)  # what brings it is said wherever a package is missing
    return kind(reader, dtype, found)
