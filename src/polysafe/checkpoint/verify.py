"""The manifest of an output, and the check that the output still is what the manifest says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.adapter_config import CONFIG
from polysafe.checkpoint.digest import file_digest, hash_file
from polysafe.checkpoint.header import read_header
from polysafe.checkpoint.lora import WEIGHTS, is_adapter
from polysafe.checkpoint.output import MANIFEST, RECORDS
from polysafe.checkpoint.sidecar import DONOR_FILES, MODEL_FILES, fits
from polysafe.checkpoint.source import INDEX, file_inside, open_checkpoint
from polysafe.errors import CheckpointError
from polysafe.files.json_file import Format
from polysafe.files.plain import is_name_inside
from polysafe.progress import counted

FORMAT = Format(
    "manifest of an output",
    key="polysafe_manifest",
    error=CheckpointError,
    absent="has no manifest; it is no output of polysafe, or an incomplete copy of one",
    largest=1 << 26,
)
_WEIGHTS = ("*.safetensors",)
EXECUTED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.py")
"""Code, and pickles, which are code."""
UPDATE = f"{RECORDS}/update.json"
"""What an update of small files leaves behind when it is interrupted (see `polysafe.checkpoint.update`)."""


@dataclass(frozen=True)
class VerifyReport:
    """Outcome of a verification.

    Attributes:
        ok: Whether every file is there with the size and SHA-256 of the manifest, and no other that is read as part
            of a model.
        problems: What is not, one line each.
        files: Number of files checked.
        bytes: Their size in all.
        unlisted: Files that the manifest does not name; nothing vouches for them.
    """

    ok: bool
    problems: tuple[str, ...]
    files: int
    bytes: int
    unlisted: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)


def manifest(edit: str, files: dict[str, tuple[int, str]], sources: dict[str, Any]) -> dict[str, Any]:
    """The content of a manifest.

    Args:
        edit: SHA-256 of the edit.
        files: Size and SHA-256 of every file of the output.
        sources: What the output was made from.
    """
    listed = [{"path": name, "size": size, "sha256": digest} for name, (size, digest) in sorted(files.items())]
    return {**FORMAT.head, "edit": edit, "sources": sources, "files": listed}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an output.

    Raises:
        CheckpointError: There is none, or it cannot be understood.
    """
    return manifest_at(folder / MANIFEST)


def manifest_at(path: Path) -> dict[str, Any]:
    """The manifest that a file is.

    Raises:
        CheckpointError: As for `read_manifest`.
    """
    return _sound(FORMAT.read(path), path)


def parse_manifest(data: bytes, where: Path) -> dict[str, Any]:
    """The same, for the bytes of one.

    Raises:
        CheckpointError: They cannot be understood.
    """
    return _sound(FORMAT.parse(data, where), where)


def _sound(content: dict[str, Any], where: Path) -> dict[str, Any]:
    """Everything is there, in its type, and no path leads out of the folder."""
    files = content.get("files")
    sound = (
        isinstance(content.get("edit"), str)
        and isinstance(content.get("sources"), dict)
        and isinstance(files, list)
        and all(isinstance(entry, dict) and set(entry) == {"path", "size", "sha256"} for entry in files)
        and all(is_name_inside(entry["path"]) and type(entry["size"]) is int for entry in files)
    )
    if not sound:
        FORMAT.refuse("is no valid manifest of an output", where)
    return content


def verify_output(folder: Path | str, advance: Callable[[int], None] = lambda _: None) -> VerifyReport:
    """Reads every file of an output again and compares it with the manifest.

    Raises:
        CheckpointError: There is no readable manifest.
    """
    root = Path(folder)
    entries = read_manifest(root)["files"]
    listed = {entry["path"] for entry in entries} | {MANIFEST, UPDATE}
    unlisted = _present(root) - listed
    problems = [p for entry in entries for p in _problems(root, entry, lambda path: hash_file(path, advance))]
    if os.path.lexists(root / UPDATE):
        problems = [
            "an update of the model card was interrupted; `polysafe card` on this folder finishes it",
            *problems,
        ]
    if not problems:
        problems = _open_problems(root)
    if not any(fits(name, _WEIGHTS) for name in listed):
        problems.append(f"{MANIFEST}: names no weights")
    read = sorted(filter(_is_read, unlisted))
    problems += [f"{name}: is not in the manifest, but is read with a model" for name in read]
    total = sum(entry["size"] for entry in entries)
    return VerifyReport(not problems, tuple(problems), len(entries), total, tuple(sorted(unlisted)))


def _present(root: Path) -> set[str]:
    """Every name in a folder that is no folder, be there a file behind it or not."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


def _is_read(name: str) -> bool:
    """Whether a program that loads a model would read, or execute, a file of this name."""
    return fits(name, (*_WEIGHTS, *EXECUTED, *MODEL_FILES, *DONOR_FILES, INDEX, CONFIG))


def _problems(root: Path, entry: dict[str, Any], digest: Callable[[Path], str]) -> list[str]:
    name = entry["path"]
    if not os.path.isfile(root / name):  # which a name too long for the system is not either
        return [f"{name}: is missing"]
    try:
        path = file_inside(root.resolve(), name)
    except CheckpointError as error:
        return [f"{name}: {error.problem}"]
    size = path.stat().st_size
    if size != entry["size"]:
        return [f"{name}: has {size} bytes, the manifest says {entry['size']}"]
    if digest(path) != entry["sha256"]:
        return [f"{name}: was changed (its SHA-256 differs from the manifest)"]
    return []


def _open_problems(root: Path) -> list[str]:
    """A stale file beside the listed ones can still make the folder unreadable as a checkpoint, or as an adapter."""
    try:
        if is_adapter(root):
            read_header(root / WEIGHTS)
        else:
            open_checkpoint(root)
    except CheckpointError as error:
        return [str(error)]
    return []


def is_whole(folder: Path, content: Mapping[str, Any]) -> bool:
    """Whether every file of a manifest is as it was written.

    Files that have not changed since they were last read are not read again; `verify_output` reads all of them.

    Raises:
        CheckpointError: A file cannot be read.
    """
    advance = counted("checking what is there", sum(entry["size"] for entry in content["files"]))

    def digest(path: Path) -> str:
        return file_digest(path, advance)

    return not any(_problems(folder, entry, digest) for entry in content["files"])


def small_digests(content: Path, weights: Mapping[str, object]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every file in a folder that is being written but the weights and the manifest."""
    paths = {path.relative_to(content).as_posix(): path for path in content.rglob("*") if path.is_file()}
    return {
        name: (path.stat().st_size, hash_file(path))
        for name, path in paths.items()
        if name not in weights and name != MANIFEST
    }
