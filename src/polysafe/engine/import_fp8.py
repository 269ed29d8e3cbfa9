"""Makes ordinary checkpoint folders of FP8 ones."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from polysafe._version import __version__
from polysafe.checkpoint.digest import checkpoint_digests
from polysafe.checkpoint.dtypes import float_dtype
from polysafe.checkpoint.fp8 import Fp8Conversion
from polysafe.checkpoint.imported import Imported, is_terms
from polysafe.checkpoint.licence import licence_of
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.source import Checkpoint, bytes_up_to, file_inside, open_checkpoint
from polysafe.engine.imports import SHARD_SIZE, Importer, ImportResult, import_to
from polysafe.files.atomic import json_bytes
from polysafe.progress import Meter, Progress, tell

_LARGEST_TERMS = 1 << 20


def import_fp8(
    source: Path | str,
    output: Path | str,
    *,
    dtype: str = "BF16",
    shard_size: int = SHARD_SIZE,
    progress: Progress = tell,
) -> ImportResult:
    """Makes a checkpoint folder with ordinary numbers of one with FP8 weights and their scales.

    What quantisation lost does not come back. An import that was interrupted goes on when it is called again.

    Args:
        source: The folder.
        output: The new folder.
        dtype: Type that dequantised weights are rounded to: `BF16`, `F16` or `F32`; other tensors stay as they are.
        shard_size: Largest size of an output file in bytes.
        progress: Told what is done.

    Raises:
        CheckpointError: It is no checkpoint, not quantised, or not as FP8 with a scale that fits every weight.
        OutputError: The output exists or cannot be written.
        ResourceError: The disk is too small.
    """
    float_dtype(dtype)
    checkpoint = open_checkpoint(source)
    return import_to(
        output, lambda target: _Fp8Import(checkpoint, target, dtype, shard_size, progress), [checkpoint.root]
    )


class _Fp8Import(Importer):
    """From a checkpoint folder with FP8 weights."""

    def __init__(self, checkpoint: Checkpoint, target: Path, dtype: str, shard_size: int, progress: Progress) -> None:
        super().__init__(target, dtype, shard_size, progress)
        self._checkpoint = checkpoint

    def _identity(self) -> str:
        stamps = [header.stamp.key for header in self._checkpoint.headers]
        parts = [__version__, "fp8", stamps, self._dtype, self._shard_size]
        return hashlib.sha256(json_bytes(parts)).hexdigest()

    def _convert(self, resumed: bool) -> ImportResult:
        checkpoint = self._checkpoint
        with CheckpointReader(checkpoint) as reader:
            conversion = Fp8Conversion(reader, self._dtype)
            size = sum(header.size for header in checkpoint.headers)
            digests = checkpoint_digests(checkpoint, Meter(self._progress, "hashing inputs", size))
            record = Imported(
                format="fp8",
                file=checkpoint.root.name,
                sha256=hashlib.sha256(json_bytes(dict(sorted(digests.items())))).hexdigest(),
                size=size,
                architecture=str(checkpoint.text_config.get("model_type", "unknown")),
                types=conversion.types,
                dtype=self._dtype,
                licence=licence_of(checkpoint.root).id,
                terms=tuple(self._terms()),
                libraries={"torch": version("torch")},
                notes=conversion.notes,
            )
            return self._written(conversion, record, digests, resumed, checkpoint.check_unchanged)

    def _terms(self) -> dict[str, bytes]:
        folder = self._checkpoint.root
        names = sorted(path.name for path in folder.iterdir() if is_terms(path.name))
        return {name: bytes_up_to(file_inside(folder, name), _LARGEST_TERMS) for name in names}
