"""Replaces small files of a finished output together with its manifest, as one step.

A folder cannot be replaced by one rename without copying its weights. So what is to be written goes into one file
first, durably; then the files are replaced one by one, the manifest last, and that file is removed. Whoever is killed
in between leaves it behind: `verify` sees it and says what to do, and everyone who next works on the output carries it
out before anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.verify import UPDATE, read_manifest
from polysafe.checkpoint.writer import output_error
from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes, remove_unfinished, write_bytes_atomic, write_json_atomic
from polysafe.files.json_file import Format

FORMAT = Format(
    "update of an output",
    key="polysafe_update",
    error=CheckpointError,
    again="remove this file, then run `polysafe card` on the output",
)


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files of text into an output and their sizes and hashes into its manifest. Call it within `lock(folder)`.

    Args:
        folder: The output.
        files: Content by path in the output; UTF-8.

    Raises:
        CheckpointError: There is no readable manifest.
        OutputError: A file cannot be written.
    """
    content = read_manifest(folder)
    entries = {entry["path"]: entry for entry in content["files"]}
    for path, data in files.items():
        entries[path] = {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files = {**files, MANIFEST: json_bytes({**content, "files": [entries[path] for path in sorted(entries)]})}
    texts = {path: data.decode() for path, data in files.items()}
    try:
        write_json_atomic(folder / UPDATE, {**FORMAT.head, "files": texts})
    except OSError as error:
        raise output_error(folder / UPDATE, error) from error
    finish_update(folder)


def finish_update(folder: Path) -> bool:
    """Carries out an update that was interrupted, and tells whether there was one. Call it within `lock(folder)`.

    Raises:
        CheckpointError: The file that describes the update is damaged.
        OutputError: A file cannot be written.
    """
    if not (folder / UPDATE).exists():
        return False
    texts = _read(folder / UPDATE)
    try:
        remove_unfinished(folder)
        for path in sorted(texts, key=lambda path: path == MANIFEST):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(folder / path, texts[path].encode())
        (folder / UPDATE).unlink()
    except OSError as error:
        raise output_error(folder, error) from error
    return True


def _read(path: Path) -> dict[str, str]:
    texts = FORMAT.read(path).get("files")
    if not isinstance(texts, dict) or not all(isinstance(text, str) and _inside(name) for name, text in texts.items()):
        FORMAT.refuse("is no valid update of an output", path)
    return texts


def _inside(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/")) and "\\" not in name
