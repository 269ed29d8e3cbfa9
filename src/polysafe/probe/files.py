"""Probe files: what a forward pass recorded, with a header that says of what.

Statistics of one model used for another give numbers that look right, so a probe file carries the hashes of model,
tokenizer and data and is refused when one of them differs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict

from polysafe.checkpoint.header import read_header
from polysafe.errors import MismatchError, OutputError
from polysafe.files.atomic import sync_directory
from polysafe.files.json_file import Format

R = TypeVar("R", bound="Record")
FORMAT = Format("probe file", key="polysafe_probe")


class Record(BaseModel):
    """What was recorded, from what; the fields are the ones that have to agree."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def check_same(self, other: Self, *, where: object) -> None:
        """Refuses what was recorded from something else.

        Raises:
            MismatchError: Names the first field that differs, with both values.
        """
        for field in type(self).model_fields:
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                raise MismatchError(
                    f"was recorded with another {field}: {theirs} there, {mine} asked for",
                    where=where,
                    remedy="delete the file to record it again, or name another",
                )


class ProbeRecord(Record):
    """What a capture recorded.

    Attributes:
        model: Identity of the weights (`LoadedModel.sha256`).
        tokenizer: SHA-256 of tokenizer and template.
        data: SHA-256 of the names and token ids of the prompts.
        pairs: The same of the prompts they are paired with, None without pairs.
        kind: What is kept: `rows`, `statistics` or `moments`.
        site: Where in a layer it was recorded.
        layers: In which layers.
        modules: The modules whose inputs these are, one for each layer.
        pooling: How the tokens of a prompt become one row.
        dtype: Type that the model computed in.
        prompts: Number of prompts, pairs not counted.
        tokens: Number of their tokens.
    """

    model: str
    tokenizer: str
    data: str
    pairs: str | None = None
    kind: str
    site: str
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    pooling: str
    dtype: str
    prompts: int
    tokens: int


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")

    record: dict[str, Any]
    ids: tuple[str, ...]


def write_probe(path: Path, record: Record, ids: tuple[str, ...], tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes a probe file, whole or not at all.

    Raises:
        OutputError: The folder cannot be written to, or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content = _Content(record=record.model_dump(mode="json"), ids=ids)
    text = json.dumps({**FORMAT.head, **content.model_dump(mode="json")}, ensure_ascii=False, separators=(",", ":"))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors ignores the user's umask
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            temporary,
            metadata={FORMAT.key: text},
        )
        temporary.chmod(mode)
        _flush(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot be written: {error}", where=path) from error
    finally:
        _remove(temporary)
    sync_directory(path.parent)


def read_probe(
    path: Path, kind: type[R], expected: R | None = None
) -> tuple[R, tuple[str, ...], dict[str, torch.Tensor]]:
    """Reads a probe file: its record, the names of its prompts, and its tensors.

    Args:
        path: The file.
        kind: What it should be a record of.
        expected: What it should have been recorded from, if that matters.

    Raises:
        CheckpointError: The tensors are damaged.
        DataError: It is no probe file, or of another schema.
        MismatchError: It was recorded from something else than `expected`; the message names the field.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    text = read_header(path).metadata.get(FORMAT.key)
    if text is None:
        FORMAT.refuse("is no probe file", path)
    record, ids = _parse(path, text, kind)
    if expected is not None:
        expected.check_same(record, where=path)
    try:
        return record, ids, load_file(path)
    except (SafetensorError, KeyError) as error:  # of what the format has and torch does not
        FORMAT.refuse(f"cannot be read: {error}", path, cause=error)


def _parse(path: Path, text: str, kind: type[R]) -> tuple[R, tuple[str, ...]]:
    def build(entries: object) -> tuple[R, tuple[str, ...]]:
        content = _Content.model_validate(entries)
        if len(content.ids) != content.record.get("prompts", len(content.ids)):
            raise ValueError("it does not name as many prompts as it holds")
        return kind.model_validate(content.record, strict=False), content.ids

    return FORMAT.built(build, FORMAT.parse(text.encode(), path), path)


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # it is gone if all went well, and cannot be there if its folder cannot
        temporary.unlink()


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
