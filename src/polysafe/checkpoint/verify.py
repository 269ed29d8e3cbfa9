"""The manifest of an output, and the check that the output still is what the manifest says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polysafe.checkpoint.digest import hash_file
from polysafe.checkpoint.header import read_header
from polysafe.checkpoint.lora import WEIGHTS, is_adapter
from polysafe.checkpoint.output import MANIFEST, RECORDS
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from polysafe.files.json_file import Format

FORMAT = Format(
    "manifest of an output",
    key="polysafe_manifest",
    error=CheckpointError,
    absent="has no manifest; it is no output of polysafe, or an incomplete copy of one",
)
UPDATE = f"{RECORDS}/update.json"
"""What an update of small files leaves behind when it is interrupted (see `polysafe.checkpoint.update`)."""


@dataclass(frozen=True)
class VerifyReport:
    """Outcome of a verification.

    Attributes:
        ok: Whether every file is there with the size and SHA-256 of the manifest.
        problems: What is not, one line each.
        files: Number of files checked.
        bytes: Their size in all.
        unlisted: Files that the manifest does not name; they are no problem, but nothing vouches for them.
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
    content = FORMAT.read(folder / MANIFEST)
    if not _is_sound(content):
        FORMAT.refuse("is no valid manifest of an output", folder / MANIFEST)
    return content


def _is_sound(content: dict[str, Any]) -> bool:
    """Whether everything is there, in its type, and no path leads out of the folder."""
    files = content.get("files")
    return (
        isinstance(content.get("edit"), str)
        and isinstance(content.get("sources"), dict)
        and isinstance(files, list)
        and all(isinstance(entry, dict) and set(entry) == {"path", "size", "sha256"} for entry in files)
        and all(isinstance(entry["path"], str) and isinstance(entry["size"], int) for entry in files)
        and not any({"", ".", ".."} & set(entry["path"].split("/")) for entry in files)
    )


def verify_output(folder: Path | str, advance: Callable[[int], None] = lambda _: None) -> VerifyReport:
    """Reads every file of an output again and compares it with the manifest.

    Raises:
        CheckpointError: There is no readable manifest.
    """
    root = Path(folder)
    entries = read_manifest(root)["files"]
    problems = [problem for entry in entries for problem in _problems(root, entry, advance)]
    if (root / UPDATE).exists():
        problems = [
            "an update of the model card was interrupted; `polysafe card` on this folder finishes it",
            *problems,
        ]
    if not problems:
        problems = _open_problems(root)
    listed = {entry["path"] for entry in entries} | {MANIFEST, UPDATE}
    present = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    total = sum(entry["size"] for entry in entries)
    return VerifyReport(not problems, tuple(problems), len(entries), total, tuple(sorted(present - listed)))


def _problems(root: Path, entry: dict[str, Any], advance: Callable[[int], None]) -> list[str]:
    path = root / entry["path"]
    if not path.is_file():
        return [f"{entry['path']}: is missing"]
    size = path.stat().st_size
    if size != entry["size"]:
        return [f"{entry['path']}: has {size} bytes, the manifest says {entry['size']}"]
    if hash_file(path, advance) != entry["sha256"]:
        return [f"{entry['path']}: was changed (its SHA-256 differs from the manifest)"]
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
    """Whether every file of a manifest is there in its size; `verify_output` also reads them."""
    return all(
        (folder / entry["path"]).is_file() and (folder / entry["path"]).stat().st_size == entry["size"]
        for entry in content["files"]
    )


def small_digests(content: Path, weights: Mapping[str, object]) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of every file in a folder that is being written but the weights and the manifest."""
    paths = {path.relative_to(content).as_posix(): path for path in content.rglob("*") if path.is_file()}
    return {
        name: (path.stat().st_size, hash_file(path))
        for name, path in paths.items()
        if name not in weights and name != MANIFEST
    }
