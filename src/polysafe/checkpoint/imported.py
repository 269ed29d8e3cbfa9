"""Where weights came from that were not published as a checkpoint folder, told by the folder that they became."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from polysafe.errors import CheckpointError
from polysafe.files.atomic import json_bytes
from polysafe.files.json_file import Format

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = Format(
    "record of imported weights",
    key="polysafe_imported",
    error=CheckpointError,
    again="import the model again",
    largest=1 << 20,
)
FILE = "polysafe/imported.json"
"""The record's place in a checkpoint folder: among the records of `polysafe.checkpoint.output`."""
PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
"""Storage types that hold numbers, not codes of numbers."""

_TERMS = re.compile(
    r"(LICEN[SC]E|NOTICE|COPYING|COPYRIGHT)([._-].*)?|(.*[._-])?(TERMS|USE[._-]?POLICY)([._-].*)?", re.IGNORECASE
)
_CODE = frozenset({".json", ".py", ".pyc", ".pyd", ".safetensors", ".so"})


@dataclass(frozen=True)
class Imported:
    """A file of another format that weights were made of.

    Attributes:
        format: The format, `gguf`.
        file: Name of the file.
        sha256: Its hash.
        size: Its size in bytes.
        architecture: What it calls its architecture.
        types: Storage types in it, each with the number of its tensors.
        dtype: Type that the numbers were rounded to.
        name: What it calls the model.
        package: The installed package that it lay in.
        version: Version of that package.
        licence: The licence that file or package name, as the hub calls it.
        terms: Files beside the weights that say under which terms they may be used.
        libraries: Versions of the libraries that read it.
        notes: What a reader should know.
    """

    format: str
    file: str
    sha256: str
    size: int
    architecture: str
    types: Mapping[str, int]
    dtype: str
    name: str | None = None
    package: str | None = None
    version: str | None = None
    licence: str | None = None
    terms: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def quantised(self) -> tuple[str, ...]:
        """The types of codes in the file, the most frequent first."""
        return tuple(name for name in self.types if name not in PLAIN)

    @property
    def origin(self) -> str:
        """The file, with the package that it is from."""
        return self.file if self.package is None else f"{self.file} of the package {self.package} {self.version}"

    @property
    def sentence(self) -> str:
        """What has to be said of everything that is made of these weights."""
        if not self.quantised:
            return f"the weights were converted from {self.origin} ({', '.join(self.types)})"
        return f"the weights were quantised ({', '.join(self.quantised)}) before; dequantised from {self.origin}"


def imported_bytes(records: Iterable[Imported]) -> bytes:
    """The content of the record's file."""
    return json_bytes({**FORMAT.head, "weights": [asdict(record) for record in records]})


def read_imported(folder: Path) -> tuple[Imported, ...]:
    """What a folder says its weights were imported from; empty where it says nothing.

    Raises:
        CheckpointError: The record is damaged, or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return ()
    records = FORMAT.built(records_of, FORMAT.read(path).get("weights"), path)
    for name in (name for record in records for name in record.terms):
        if not is_terms(name):
            FORMAT.refuse(f"names {name!r}, which is no file of terms in the same folder", path)
    return records


def records_of(values: object) -> tuple[Imported, ...]:
    """The records that `dataclasses.asdict` made plain.

    Raises:
        pydantic.ValidationError: The values are none.
    """
    return _adapter().validate_python(values)


def is_terms(name: str) -> bool:
    """Whether a file of this name, in the same folder, says under which terms the others may be used."""
    return _TERMS.fullmatch(name) is not None and not set("/\\\0") & set(name) and Path(name).suffix not in _CODE


@cache
def _adapter() -> TypeAdapter[tuple[Imported, ...]]:
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[Imported, ...])
