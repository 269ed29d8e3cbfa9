"""Writes the folder of a LoRA adapter in PEFT's form: whole or not at all, with a manifest.

The scale of the update is part of B and `lora_alpha` is the rank, so that the factor α/r is 1 for every module; a
program that overlooks `rank_pattern` still computes the right product. `r` is the largest rank, which is what servers
compare with the rank they have room for. No name of a local folder is written.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from polysafe.checkpoint.adapter_config import CONFIG
from polysafe.checkpoint.dtypes import bytes_of
from polysafe.checkpoint.header import TensorSpec, encode_header, tensor_bytes
from polysafe.checkpoint.layout import Shard
from polysafe.checkpoint.lora import WEIGHTS
from polysafe.checkpoint.output import MANIFEST, RECORDS, Workspace
from polysafe.checkpoint.verify import manifest
from polysafe.checkpoint.writer import output_error, write_shard
from polysafe.edits.edit import Edit
from polysafe.files.atomic import json_bytes, write_bytes_atomic, write_json_atomic

RECORD = f"{RECORDS}/export.json"
_PREFIX = "base_model.model."
_HUB = re.compile(r"^(?P<id>\w[\w.-]*/\w[\w.-]*)@(?P<revision>[0-9a-f]{40})$")

Factors = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""Module -> A of shape [rank, inputs] and B of shape [outputs, rank], both in the storage type."""


def adapter_config(
    ranks: Mapping[str, int], *, transposed: bool, base: str | None, revision: str | None
) -> dict[str, Any]:
    """The content of `adapter_config.json`.

    Args:
        ranks: Rank of every module, by its full name in the running model.
        transposed: Whether the weights are stored input × output (Conv1D).
        base: Hub id, or another public name, of the base model.
        revision: Its commit.
    """
    largest = max(ranks.values())
    # PEFT reads keys as regular expressions that may match a suffix; these match one module and no other.
    pattern = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != largest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": sorted(ranks),
        "fan_in_fan_out": transposed,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def public_origin(origin: str) -> tuple[str | None, str | None]:
    """Hub id and commit of an origin; nothing for a local folder, whose name is nobody else's business."""
    found = _HUB.match(origin)
    return (found["id"], found["revision"]) if found else (None, None)


def write_adapter(
    target: Path, edit: Edit, config: Mapping[str, Any], factors: Factors, record: Mapping[str, Any], dtype: str
) -> int:
    """Writes an adapter folder and returns the size of its weights in bytes.

    Args:
        target: The new folder; it appears when everything is in it.
        edit: What the adapter was made from, with the digests of its inputs.
        config: Content of `adapter_config.json`.
        factors: The factors of every module.
        record: What was done, for `polysafe/export.json`.
        dtype: Storage type of the factors.

    Raises:
        OutputError: Writing failed; nothing is left behind.
    """
    space = Workspace(target)
    space.prepare(uuid.uuid4().hex)
    try:
        shard, tensors = _shard(factors, dtype)
        small = {CONFIG: json_bytes(config), RECORD: json_bytes(record)}
        _write_small(space, small)
        files = {name: (len(content), _sha256(content)) for name, content in small.items()}
        digest = write_shard(
            shard, space.content, space.progress / WEIGHTS, lambda name: iter([bytes_of(tensors[name])]), lambda _: None
        )
        content = manifest(edit.sha256, {**files, WEIGHTS: (shard.size, digest)}, _sources(edit))
        _write_manifest(space, content)
        space.publish()
    finally:
        shutil.rmtree(space.work, ignore_errors=True)
    return shard.size


def _shard(factors: Factors, dtype: str) -> tuple[Shard, dict[str, torch.Tensor]]:
    tensors = {
        f"{_PREFIX}{module}.lora_{side}.weight": factor
        for module, pair in sorted(factors.items())
        for side, factor in zip("AB", pair, strict=True)
    }
    shapes = [(name, dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    specs = [TensorSpec(name, code, shape, Path(), 0, tensor_bytes(code, shape)) for name, code, shape in shapes]
    return Shard(WEIGHTS, encode_header(shapes), tuple(specs)), tensors


def _write_small(space: Workspace, files: Mapping[str, bytes]) -> None:
    try:
        for name, content in files.items():
            path = space.content / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, content)
    except OSError as error:
        raise output_error(space.content, error) from error


def _write_manifest(space: Workspace, content: Mapping[str, Any]) -> None:
    try:
        write_json_atomic(space.content / MANIFEST, content)
    except OSError as error:
        raise output_error(space.content, error) from error


def _sources(edit: Edit) -> dict[str, Any]:
    """As the manifest of a checkpoint, but without the names of local folders."""
    return {
        name: {"origin": source.origin if public_origin(source.origin)[0] else name, "files": source.files}
        for name, source in edit.sources.items()
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
