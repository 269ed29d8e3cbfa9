"""Replaces small files of a finished output together with its manifest, as one step.

A folder cannot be replaced by one rename without copying its weights. So what is to be written goes into one file
first, durably; then the files are replaced one by one, the manifest last, and that file is removed. Whoever is killed
in between leaves it behind: `verify` sees it and says what to do, and everyone who next works on the output carries it
out before anything else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polysafe.checkpoint.output import MANIFEST, RECORDS
from polysafe.checkpoint.verify import UPDATE, parse_manifest, read_manifest
from polysafe.checkpoint.writer import output_error
from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes, remove_unfinished, write_bytes_atomic, write_json_atomic
from polysafe.files.json_file import Format
from polysafe.files.plain import is_name_inside, leads_through_link

_CARD = "README.md"

FORMAT = Format(
    "update of an output",
    key="polysafe_update",
    error=CheckpointError,
    again="remove this file, then run `polysafe card` on the output",
    largest=1 << 26,
)


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files of text into an output and their sizes and hashes into its manifest. Call it within `lock(folder)`.

    Args:
        folder: The output.
        files: Content by path in the output, UTF-8. If this is interrupted, only the card and records beside the
            manifest are written later: what lies in a folder may come from anybody.

    Raises:
        CheckpointError: There is no readable manifest, or a link lies where a file would go.
        OutputError: A file cannot be written.
    """
    content = read_manifest(folder)
    entries = {entry["path"]: entry for entry in content["files"]}
    for path, data in files.items():
        entries[path] = _entry(path, data)
    files = {**files, MANIFEST: json_bytes({**content, "files": [entries[path] for path in sorted(entries)]})}
    texts = {path: data.decode() for path, data in files.items()}
    _check_no_links(folder, (UPDATE, *texts))
    try:
        write_json_atomic(folder / UPDATE, {**FORMAT.head, "files": texts})
    except OSError as error:
        raise output_error(folder / UPDATE, error) from error
    _carry_out(folder, texts)


def finish_update(folder: Path) -> bool:
    """Carries out an update that was interrupted, and tells whether there was one. Call it within `lock(folder)`.

    Raises:
        CheckpointError: The file that describes the update is damaged, or asks for more than an update of small files
            of this very output.
        OutputError: A file cannot be written.
    """
    if not os.path.lexists(folder / UPDATE):
        return False
    _carry_out(folder, _read(folder))
    return True


def _carry_out(folder: Path, texts: Mapping[str, str]) -> None:
    try:
        remove_unfinished(folder)
        for path in sorted(texts, key=lambda path: path == MANIFEST):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(folder / path, texts[path].encode())
        (folder / UPDATE).unlink()
    except OSError as error:
        raise output_error(folder, error) from error


def _read(folder: Path) -> dict[str, str]:
    path = folder / UPDATE
    _check_no_links(folder, (UPDATE,))
    texts = FORMAT.read(path).get("files")
    if not isinstance(texts, dict) or MANIFEST not in texts or not all(isinstance(t, str) for t in texts.values()):
        FORMAT.refuse("is no valid update of an output", path)
    data = {name: text.encode() for name, text in texts.items()}
    for name in data:
        if not _may_change(name):
            FORMAT.refuse(f"is no valid update of an output: {name!r} is no file that an update may write", path)
    _check_no_links(folder, texts)
    _check_manifest(folder, parse_manifest(data.pop(MANIFEST), path), data)
    return texts


def _check_no_links(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        if leads_through_link(folder, name):
            raise CheckpointError(
                "is a link, or lies behind one; nothing is written there",
                where=folder / name,
                remedy="replace the link by what is behind it",
            )


def _may_change(name: str) -> bool:
    """Only what is said of a model, never the model: its card, and small records."""
    record = name.startswith(f"{RECORDS}/") and name.count("/") == 1 and name.endswith(".json")
    return name == _CARD or (record and is_name_inside(name) and name != UPDATE)


def _check_manifest(folder: Path, manifest: dict[str, Any], data: Mapping[str, bytes]) -> None:
    """The new manifest is the old one but for the files that the update brings, and those have the hashes in it."""
    found = read_manifest(folder)
    old, new = ({entry["path"]: entry for entry in content["files"]} for content in (found, manifest))
    for name, content in data.items():
        if new.pop(name, None) != _entry(name, content):
            FORMAT.refuse(f"is no valid update: {name} does not have the hash in its manifest", folder / UPDATE)
        old.pop(name, None)
    if old != new or {**found, "files": []} != {**manifest, "files": []}:
        FORMAT.refuse("is no update of this output: its manifest names other files", folder / UPDATE)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
