"""A checkpoint folder as its files describe it, checked before any work and never written to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polysafe.checkpoint.header import Header, TensorSpec, load_json, read_header
from polysafe.checkpoint.imported import read_imported
from polysafe.errors import CheckpointError
from polysafe.files.memory import Stamp
from polysafe.files.plain import TooLargeError, read_plain

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_CONFIG = 10_000_000
"""Most bytes of a `config.json`; those of real models have some ten thousand."""
MAX_INDEX = 50_000_000
"""Most bytes of an index: room for half a million tensors."""
MAX_TENSORS = 500_000
"""Most tensors of a checkpoint. The largest models, every expert in tensors of its own, have some hundred thousand."""
MAX_TOKENIZER = 64_000_000
"""Most bytes of a file of a tokenizer. The largest, with a quarter of a million tokens, have half as many."""
HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
"""A name of the hub, or a folder: only where there is none is it the hub's."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WINDOWS_SPECIAL = re.compile(r"^[A-Za-z]:|[\\:*?\"<>|\x00-\x1f]")


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors files with its config.

    Attributes:
        root: The folder.
        origin: How the user named it: a path, or `org/name@commit`.
        headers: The header of every weight file, in the order of their names.
        config: The content of `config.json`.
        notes: Things that are odd but harmless, and where the weights came from if they were imported.
    """

    root: Path
    origin: str
    headers: tuple[Header, ...]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Every tensor, in the order in which the files hold them."""
        return {name: spec for header in self.headers for name, spec in header.tensors.items()}

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files."""
        return tuple(header.file for header in self.headers)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that the weight files lie in."""
        return tuple(dict.fromkeys(file.parent for file in self.files))

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for spec in self.tensors.values())

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The part of the config that describes the language model (multimodal configs nest it)."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config

    def check_unchanged(self) -> None:
        """Refuses to go on when a weight file was modified since its header was read.

        Raises:
            CheckpointError: Size, modification time or change time differ, or a file is gone.
        """
        for header in self.headers:
            try:
                status = os.stat(header.file)
            except OSError as error:
                raise CheckpointError(f"vanished during the run: {error.strerror}", where=header.file) from error
            if Stamp.of(header.file, status) != header.stamp:
                raise CheckpointError(
                    "changed while it was being read",
                    where=header.file,
                    remedy="run again when nothing writes to this checkpoint",
                )


def open_checkpoint(root: Path | str, *, origin: str | None = None) -> Checkpoint:
    """Reads config, index and all headers of a checkpoint folder and checks that they agree.

    Args:
        root: A folder with `model.safetensors`, or with shards and their index.
        origin: How to name it in artefacts; the path as given by default.

    Raises:
        CheckpointError: A file is missing, damaged or leads out of the folder; the message names it.
    """
    folder = Path(os.path.expanduser(root))
    name = origin if origin is not None else os.fspath(root)
    if not os.path.isdir(folder):
        problem = "is a file, not a checkpoint folder" if os.path.exists(folder) else "there is no such folder"
        raise CheckpointError(problem, where=folder, remedy=_elsewhere(os.fspath(root)))
    folder = folder.resolve()
    weight_map = _weight_map(folder)
    headers = _headers(folder, _weight_files(weight_map))
    notes = [*_check_index(folder, headers, weight_map), *(record.sentence for record in read_imported(folder))]
    if os.path.lexists(folder / "adapter_config.json"):
        notes.append("an adapter lies in the folder too; it is not read here, while other programs may put it on")
    return Checkpoint(folder, name, headers, _config(folder), tuple(notes))


def is_complete(folder: Path) -> bool:
    """Whether config and all weight files are there, whatever is in them; a hub cache may hold only some.

    Raises:
        CheckpointError: The index is damaged or hostile.
    """
    if not (folder / "config.json").exists() or not any((folder / name).exists() for name in (SINGLE, INDEX)):
        return False
    return all((folder / file).exists() for file in _weight_files(_weight_map(folder)))


def file_inside(folder: Path, name: str) -> Path:
    """A file of a checkpoint as stored: it may be a link into the blob store of the same hub cache but nowhere else.

    Raises:
        CheckpointError: It is missing, no regular file, or a link that leads out of the checkpoint.
    """
    path = folder / name
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError("is missing (or is a broken link)", where=path, remedy="fetch this file again") from error
    homes = [folder]
    if folder.parent.name == "snapshots":
        homes.append(folder.parent.parent / "blobs")
    if not any(target.is_relative_to(home) for home in homes):
        raise CheckpointError(
            "is a link that leads out of the checkpoint folder",
            where=path,
            remedy="name the folder that holds the real files, or copy them here",
        )
    if not target.is_file():  # opening a pipe would wait for ever
        raise CheckpointError("is a folder or a device, not a file", where=path, remedy="fetch this file again")
    return path


def read_small_json(folder: Path, name: str, largest: int) -> Any:
    """The content of a JSON file of a checkpoint, which is looked at before it is read.

    Raises:
        CheckpointError: It is missing, a link out of the folder, too large, or no JSON.
    """
    path = file_inside(folder, name)
    return load_json(path, bytes_up_to(path, largest), "the file")


def bytes_up_to(path: Path, largest: int) -> bytes:
    """The content of a file of at most so many bytes; of a larger one nothing is kept.

    Raises:
        CheckpointError: It is larger, or cannot be read.
    """
    try:
        return read_plain(path, largest)
    except TooLargeError as error:
        raise CheckpointError(f"is larger than {largest} bytes, too large for such a file", where=path) from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=path) from error


def _weight_files(weight_map: Mapping[str, str]) -> list[str]:
    return sorted(set(weight_map.values())) or [SINGLE]


def _nothing_found(folder: Path) -> CheckpointError:
    if (folder / "adapter_config.json").exists():
        return CheckpointError(
            "is a LoRA adapter, not a full checkpoint",
            where=folder,
            remedy="name its base model in the recipe (`adapter_of`), or merge it first (PEFT: `merge_and_unload()`)",
        )
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        return CheckpointError(
            "holds pickled weights (.bin, .pt) only; reading a pickle can execute code, so it is refused",
            where=folder,
            remedy="save it as safetensors first: `model.save_pretrained(folder, safe_serialization=True)`",
        )
    return CheckpointError(f"holds neither {SINGLE} nor {INDEX}", where=folder)


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor to file name as the index says; empty if one file holds everything."""
    single, index = os.path.lexists(folder / SINGLE), folder / INDEX
    if not os.path.lexists(index):
        if single:
            return {}
        raise _nothing_found(folder)
    if single:
        raise CheckpointError(
            f"holds both {SINGLE} and {INDEX}; programs disagree on which of them counts",
            where=folder,
            remedy="move the stale one away",
        )
    content = read_small_json(folder, INDEX, MAX_INDEX)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("has no weight_map", where=index, remedy="fetch the index again")
    if len(weight_map) > MAX_TENSORS:
        raise CheckpointError(f"holds more than {MAX_TENSORS} tensors, more than any model", where=index)
    for tensor, file in weight_map.items():
        if not isinstance(file, str):
            raise CheckpointError(f"maps {tensor!r} to something that is no file name", where=index)
    for file in dict.fromkeys(weight_map.values()):
        _check_name(index, file)
    return weight_map


def _headers(folder: Path, files: Sequence[str]) -> tuple[Header, ...]:
    headers: list[Header] = []
    count = 0
    for file in files:
        headers.append(read_header(file_inside(folder, file)))
        count += len(headers[-1].tensors)
        if count > MAX_TENSORS:
            raise CheckpointError(f"holds more than {MAX_TENSORS} tensors, more than any model", where=folder)
    return tuple(headers)


def _check_name(index: Path, name: str) -> None:
    """File names are judged by the rules of every system at once: an index travels between them."""
    unsafe = _WINDOWS_SPECIAL.search(name) or "/" in name or name.startswith("~") or name in {"", ".", ".."}
    if unsafe or not name.endswith(".safetensors"):
        raise CheckpointError(
            f"names {name!r}, which is not a .safetensors file in the same folder",
            where=index,
            remedy="do not trust this checkpoint; fetch it again from its publisher",
        )


def _check_index(folder: Path, headers: tuple[Header, ...], weight_map: Mapping[str, str]) -> list[str]:
    """Every tensor stands in one file only, and in the one that the index names."""
    home: dict[str, Path] = {}
    for header in headers:
        for name in header.tensors:
            if name in home:
                raise CheckpointError(f"tensor {name!r} is also in {home[name].name}", where=header.file)
            home[name] = header.file
    if not home:
        raise CheckpointError("holds no tensor", where=folder)
    for name, file in weight_map.items():
        if name not in home or home[name].name != file:
            raise CheckpointError(
                f"tensor {name!r} is not in this file, although {INDEX} says so",
                where=folder / file,
                remedy="fetch the checkpoint again",
            )
    extra = sorted(set(home) - set(weight_map)) if weight_map else []
    return [f"{len(extra)} tensors are in the files but not in the index, first {extra[0]}"] if extra else []


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise CheckpointError("is missing", where=path, remedy="a checkpoint needs the config.json of its model")
    content = read_small_json(folder, path.name, MAX_CONFIG)
    if not isinstance(content, dict):
        raise CheckpointError("is not a JSON object", where=path)
    for part in (content, content.get("text_config")):
        if isinstance(part, dict) and not isinstance(part.get("model_type"), str | None):
            raise CheckpointError("its model_type is no text", where=path, remedy="fetch this file again")
    return content


def config_text(config: Mapping[str, Any]) -> bytes:
    """A config in the form in which Hugging Face libraries write it."""
    return (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _elsewhere(name: str) -> str | None:
    """What to do where no folder has this name, if it looks like a model that is somewhere else."""
    if re.match(r"https?:/", name):
        return "a model that a server runs is asked by the name that it has there: NAME@URL"
    if HUB_NAME.fullmatch(name):
        return f"a model of the hub is fetched first: `hf download {name} --local-dir FOLDER`"
    return None
