"""Makes ordinary checkpoint folders of GGUF files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from polysafe._version import __version__
from polysafe.checkpoint.dtypes import float_dtype
from polysafe.checkpoint.gguf.extra import gguf_package, transformers_package, versions
from polysafe.checkpoint.gguf.find import GgufFile, find_gguf
from polysafe.checkpoint.gguf.header import GgufHeader, read_gguf_header
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.imported import FILE, Imported, imported_bytes
from polysafe.checkpoint.layout import Layout, plan_layout
from polysafe.checkpoint.licence import licence_id
from polysafe.checkpoint.output import MANIFEST, Workspace, check_target, lock
from polysafe.checkpoint.verify import is_whole, manifest, read_manifest, small_digests
from polysafe.checkpoint.writer import output_error, write_shard
from polysafe.engine.import_card import import_card
from polysafe.errors import (
    ArchitectureError,
    CheckpointError,
    OutputError,
    ResourceError,
)
from polysafe.files.atomic import json_bytes, write_bytes_atomic, write_json_atomic
from polysafe.files.memory import cache_directory
from polysafe.files.paths import PACKAGE
from polysafe.progress import Meter, Progress, tell

SHARD_SIZE = 5_000_000_000

_NO_EDIT = ""
_SLACK = 64 << 20
"""Room for tokenizer and records, which are written before anyone knows how large they are."""


@dataclass(frozen=True)
class ImportResult:
    """What an import left behind.

    Attributes:
        output: The finished folder.
        record: Where its weights came from.
        manifest: Its manifest.
        resumed: Whether it went on where an earlier one was interrupted.
    """

    output: Path
    record: Imported
    manifest: Mapping[str, Any]
    resumed: bool = False


def import_gguf(
    source: str | Path,
    output: Path | str,
    *,
    dtype: str = "BF16",
    shard_size: int = SHARD_SIZE,
    progress: Progress = tell,
) -> ImportResult:
    """Makes a checkpoint folder of a GGUF file: weights, config, tokenizer, chat template, terms.

    Quantised weights are dequantised; what quantisation lost does not come back. An import that was interrupted goes on
    when it is called again.

    Args:
        source: The file, or `package:NAME` for one in an installed package.
        output: The new folder.
        dtype: Type that the numbers are rounded to: `BF16`, `F16` or `F32`.
        shard_size: Largest size of an output file in bytes.
        progress: Told what is done.

    Raises:
        CheckpointError: There is no such file, or it is damaged, split, or not of a form that can be read.
        ArchitectureError: transformers does not know the architecture.
        OutputError: The output exists or cannot be written.
        ResourceError: A library is missing, or the disk is too small.
    """
    float_dtype(dtype)
    gguf_package()
    transformers_package()
    file = find_gguf(source)
    return import_to(output, lambda target: _GgufImport(file, target, dtype, shard_size, progress))


def import_to(output: Path | str, importer: Callable[[Path], Importer], inputs: Sequence[Path] = ()) -> ImportResult:
    """Runs an import into a folder that nobody else writes to.

    Args:
        output: The new folder.
        importer: Makes the import, given where to.
        inputs: Folders that are read, which the new one must lie outside of.

    Raises:
        OutputError: The output exists or cannot be written.
        PolysafeError: What the import raises.
    """
    target = Path(output).expanduser().absolute()
    check_target(target, list(inputs))
    with lock(target):
        if (target / MANIFEST).exists():
            raise OutputError(
                "already holds a finished output", where=target, remedy="remove that folder or choose another output"
            )
        return importer(target).run()


def imported_folder(source: str | Path, *, dtype: str = "BF16", progress: Progress = tell) -> Path:
    """The folder of a GGUF file in the user's cache; it is made when it is first asked for.

    Where another process makes it, that one is waited for.

    Raises:
        PolysafeError: As for `import_gguf`.
    """
    file = find_gguf(source)
    digest = file.sha256(Meter(progress, "hashing inputs", file.size))
    folder = _cached(digest, dtype)
    if not (folder / MANIFEST).exists():
        with lock(folder.with_name(f"{folder.name}-turn"), wait=True):
            if not (folder / MANIFEST).exists():
                return import_gguf(source, folder, dtype=dtype, progress=progress).output
    if not is_whole(folder, read_manifest(folder)):
        raise OutputError(
            "is a damaged copy of an imported model", where=folder, remedy="remove that folder; it is made again"
        )
    return folder


def imported_again(record: Imported, folders: Sequence[Path], progress: Progress = tell) -> Path | None:
    """The folder of a GGUF file that is known by its hash: in the cache, or made again where the file is found.

    Args:
        record: Which file it is, and what it was rounded to.
        folders: Where to look for it, after the package that it is from.
        progress: Told what is done.

    Returns:
        The folder; None where no file of this hash is found.

    Raises:
        PolysafeError: As for `import_gguf`.
    """
    known = _cached(record.sha256, record.dtype)
    if (known / MANIFEST).exists() and is_whole(known, read_manifest(known)):
        return known
    places: list[str | Path] = [folder / record.file for folder in folders]
    if record.package is not None:
        places.insert(0, f"{PACKAGE}{record.package}/{record.file}")
    for place in places:
        with suppress(CheckpointError):  # not there, or not whole: then it is not the one
            file = find_gguf(place)
            if file.size == record.size and file.sha256() == record.sha256:
                return imported_folder(place, dtype=record.dtype, progress=progress)
    return None


def _cached(digest: str, dtype: str) -> Path:
    return cache_directory() / "gguf" / f"{digest}-{dtype}"


class Conversion(Protocol):
    """A model as it will be with ordinary numbers."""

    @property
    def specs(self) -> Sequence[TensorSpec]:
        """Its tensors."""

    def blocks(self, name: str) -> Iterator[memoryview]:
        """The bytes of one of them, block by block."""

    def side_files(self) -> dict[str, bytes]:
        """Config, tokenizer and what else belongs to it, by file name."""


class Importer(ABC):
    """One import, to a published folder."""

    def __init__(self, target: Path, dtype: str, shard_size: int, progress: Progress) -> None:
        self._dtype, self._shard_size, self._progress = dtype, shard_size, progress
        self._space = Workspace(target)

    def run(self) -> ImportResult:
        resumed = self._space.prepare(self._identity())
        try:
            return self._convert(resumed)
        except (CheckpointError, ArchitectureError):  # another attempt would end in the same way
            self._space.discard()
            raise
        except ResourceError:
            if not resumed:
                self._space.discard()
            raise

    @abstractmethod
    def _identity(self) -> str:
        """What makes it another import, so that nothing of an earlier one is taken over."""

    @abstractmethod
    def _convert(self, resumed: bool) -> ImportResult:
        """Everything but the workspace."""

    @abstractmethod
    def _terms(self) -> dict[str, bytes]:
        """The texts that travel with the weights."""

    def _written(
        self,
        conversion: Conversion,
        record: Imported,
        digests: Mapping[str, str],
        resumed: bool,
        check_unchanged: Callable[[], None],
    ) -> ImportResult:
        """The folder, where nothing of its source changed meanwhile."""
        layout = plan_layout(conversion.specs, self._shard_size)
        self._require_disk(layout.size + _SLACK - self._space.size())
        self._write_small(conversion, layout, record)
        weights = self._write_weights(conversion, layout)
        check_unchanged()
        files = {**small_digests(self._space.content, weights), **weights}
        inputs = {"imported": {"origin": record.origin, "files": dict(digests)}}
        content = manifest(_NO_EDIT, files, inputs)
        self._write({MANIFEST: json_bytes(content)})
        self._space.publish()
        return ImportResult(self._space.target, record, content, resumed)

    def _write_small(self, conversion: Conversion, layout: Layout, record: Imported) -> None:
        """Everything but weights and manifest, once: a large vocabulary takes many seconds."""
        mark = self._space.progress / "small.json"
        if mark.exists():
            return
        self._progress("tokenizer", 0, 1)
        files = conversion.side_files() | self._terms()
        files |= {FILE: imported_bytes([record]), "README.md": import_card(record)}
        index = layout.index()
        self._write(files if index is None else files | {index[0]: index[1]})
        try:
            write_json_atomic(mark, {"files": sorted(files)})
        except OSError as error:
            raise output_error(mark, error) from error
        self._progress("tokenizer", 1, 1)

    def _write_weights(self, conversion: Conversion, layout: Layout) -> dict[str, tuple[int, str]]:
        advance = Meter(self._progress, "writing", layout.size)
        space = self._space
        return {
            shard.name: (
                shard.size,
                write_shard(shard, space.content, space.progress / f"{shard.name}.json", conversion.blocks, advance),
            )
            for shard in layout.shards
        }

    def _write(self, files: Mapping[str, bytes]) -> None:
        try:
            for name, content in files.items():
                path = self._space.content / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(path, content)
        except OSError as error:
            raise output_error(self._space.content, error) from error

    def _require_disk(self, needed: int) -> None:
        free = psutil.disk_usage(str(self._space.work)).free
        if needed > free:
            raise ResourceError(
                f"the output needs {needed:,} bytes more, the disk has {free:,} free",
                where=self._space.target,
                remedy="free some space or choose an output on another disk",
            )


class _GgufImport(Importer):
    """From a GGUF file that was found."""

    def __init__(self, file: GgufFile, target: Path, dtype: str, shard_size: int, progress: Progress) -> None:
        super().__init__(target, dtype, shard_size, progress)
        self._file = file
        self._stamp = file.stamp()

    def _identity(self) -> str:
        parts = [__version__, versions(), self._stamp, self._dtype, self._shard_size]
        return hashlib.sha256(json_bytes(parts)).hexdigest()

    def _joined(self) -> Path:
        """The file; pieces are joined in the workspace first, because libraries read one file."""
        if len(self._file.pieces) == 1:
            return self._file.pieces[0]
        path = self._space.work / "source" / self._file.name
        try:
            if path.is_file() and path.stat().st_size == self._file.size:
                return path
            self._require_disk(self._file.size)
            path.parent.mkdir(parents=True, exist_ok=True)
            meter = Meter(self._progress, "joining pieces", self._file.size)
            with open(path, "wb") as joined:
                for block in self._file.blocks():
                    joined.write(block)
                    meter(len(block))
        except OSError as error:
            raise output_error(path, error) from error
        return path

    def _convert(self, resumed: bool) -> ImportResult:
        from polysafe.checkpoint.gguf.convert import Conversion

        digest = self._file.sha256(Meter(self._progress, "hashing inputs", self._file.size))
        header = read_gguf_header(self._joined())
        self._progress("reading the header", 0, 1)
        conversion = Conversion(header, self._dtype)
        self._progress("reading the header", 1, 1)
        record = self._record(header, digest, conversion.notes)
        return self._written(conversion, record, {record.file: digest}, resumed, self._check_unchanged)

    def _check_unchanged(self) -> None:
        if self._file.stamp() != self._stamp:
            raise CheckpointError(
                "changed while it was being read", where=self._file.where, remedy="run again when nothing writes to it"
            )

    def _record(self, header: GgufHeader, digest: str, notes: tuple[str, ...]) -> Imported:
        stated = header.text("general.license") or ""
        return Imported(
            format="gguf",
            file=self._file.name,
            sha256=digest,
            size=header.size,
            architecture=header.architecture,
            types=header.types,
            dtype=self._dtype,
            name=header.text("general.name"),
            package=self._file.package,
            version=self._file.version,
            licence=licence_id(stated) or self._file.licence,
            terms=tuple(self._terms()),
            libraries=versions(),
            notes=notes,
        )

    def _terms(self) -> dict[str, bytes]:
        """The texts that travel with the weights; where two have one name, with that of their folder before it."""
        texts: dict[str, bytes] = {}
        for path in self._file.terms:
            content = path.read_bytes()
            name = path.name if texts.get(path.name, content) == content else f"NOTICE-{path.parent.name}-{path.name}"
            texts[name] = content
        return texts
