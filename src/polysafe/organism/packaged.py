"""A trained family on disk, and the one that comes with polysafe.

The family is a model organism: small models trained to have the problem. Numbers measured on it are no evidence about
any real model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from polysafe.errors import CheckpointError, VerificationError
from polysafe.files.json_file import Format, remembered
from polysafe.organism.lexicon import LANGUAGES, LOW, TIERS
from polysafe.organism.world import World

MEMBERS = ("base", "safety", *LOW, "harm")
RECORD = "family.json"
FORMAT = Format(
    "model family",
    error=CheckpointError,
    absent="no model family here",
    find="train one: polysafe organism build --output {folder}",
    again="train one: polysafe organism build --output {folder}",
)
NOTICE = (
    "A model organism: small models trained to have the problem. "
    "Numbers measured on it are no evidence about any real model."
)


def is_member(folder: Path) -> bool:
    """Whether a folder is a member of a toy family, by the record of the family beside it."""
    members = remembered(folder.parent / RECORD).get("members")
    return isinstance(members, Mapping) and folder.name in members


@dataclass(frozen=True)
class Family:
    """Checkpoints: base, English safety expert, an expert per low language, harm-tuned model; what else was made.

    Attributes:
        root: The folder of the family.
        record: The content of its `family.json`: seed, recipe, training log, hashes, exam results.
    """

    root: Path
    record: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """The seed of the world and of the training."""
        return int(self.record["seed"])

    @property
    def world(self) -> World:
        """The world that the members live in."""
        return World(self.seed)

    @property
    def members(self) -> dict[str, Path]:
        """Member -> its Hugging Face folder."""
        return {name: self.root / name for name in (*MEMBERS, *self.record["members"])}

    def verify(self) -> None:
        """Compares every file with its recorded hash.

        Raises:
            VerificationError: A member is missing, or a file differs from what was trained.
        """
        for name in self.members:
            for problem, file in differences(self.root / name, self.record["members"].get(name)):
                raise VerificationError(
                    problem, where=file, remedy="remove the member and run `polysafe organism build` as for this family"
                )

    def base_facts(self) -> dict[str, dict[str, float | str]]:
        """What the base does per language on held-out test prompts: tier, and the rate of every metric."""
        rates = self.record["exams"]["base"]
        return {language: {"tier": TIERS[language], **rates[language]} for language in LANGUAGES}

    def info(self) -> dict[str, Any]:
        """The family in values that JSON can hold; `members` maps each member to its folder."""
        return {
            "notice": NOTICE,
            "seed": self.seed,
            "root": str(self.root),
            "members": {name: str(path) for name, path in self.members.items()},
            "languages": dict(TIERS),
            "base": self.base_facts(),
            "bytes": sum(file.stat().st_size for member in self.members.values() for file in member.iterdir()),
            "versions": self.record["members"]["base"]["versions"],
        }


def load_family(root: Path | str) -> Family:
    """Reads a family from its folder and checks every file against its hash.

    Raises:
        CheckpointError: The folder holds no complete family.
        VerificationError: A file is not the one that was trained.
    """
    root = Path(root)
    record = FORMAT.read(root / RECORD)
    if "exams" not in record:
        FORMAT.refuse("the family is not complete", root / RECORD)
    family = Family(root, record)
    family.verify()
    return family


def packaged_family() -> Family:
    """The family that comes with the package.

    Raises:
        CheckpointError: The package was installed without it.
        VerificationError: A file is not the one that was trained.
    """
    return load_family(Path(str(resources.files("polysafe.organism").joinpath("family"))))


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """File name -> its size and SHA-256."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}


def sha256(file: Path) -> str:
    """Hash of a file in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def differences(folder: Path, entry: Mapping[str, Any] | None) -> Iterator[tuple[str, Path]]:
    """What is wrong with a member's folder, compared with its record: (problem, file)."""
    if entry is None or not folder.is_dir():
        yield "this member of the family is missing", folder
        return
    found = describe_files(folder)
    for name, expected in entry["files"].items():
        if name not in found:
            yield "the file is missing", folder / name
        elif found[name] != expected:
            yield "the file differs from what was trained (SHA-256)", folder / name
