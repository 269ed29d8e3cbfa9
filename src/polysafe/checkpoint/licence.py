"""Under which licence the files of a model were published, as far as the folder tells."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from polysafe.checkpoint.source import file_inside
from polysafe.errors import CheckpointError, RecipeError, did_you_mean

UNDECIDED = frozenset({"other", "unknown"})
"""Words that stand for a licence on the hub and name none."""

_LARGEST = 1 << 20
_FRONT_MATTER = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|\Z)", re.DOTALL)
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_TEXTS = (
    (r"Apache License\s+Version 2\.0", "apache-2.0"),
    (r"\AMIT License|Permission is hereby granted, free of charge, to any person obtaining a copy of this", "mit"),
    (r"LLAMA 3\.3 COMMUNITY LICENSE", "llama3.3"),
    (r"LLAMA 3\.2 COMMUNITY LICENSE", "llama3.2"),
    (r"LLAMA 3\.1 COMMUNITY LICENSE", "llama3.1"),
    (r"META LLAMA 3 COMMUNITY LICENSE", "llama3"),
    (r"LLAMA 2 COMMUNITY LICENSE", "llama2"),
    (r"Gemma Terms of Use", "gemma"),
)


@dataclass(frozen=True)
class Licence:
    """What a folder says about its licence.

    Attributes:
        id: The hub's name of it, such as `apache-2.0`; None where the folder names none that can be told.
        said: What stands there, in its own words; empty where nothing does.
        where: File that says so; empty where none does.
    """

    id: str | None
    said: str = ""
    where: str = ""


def licence_of(folder: Path) -> Licence:
    """The licence of a model in a folder: from its model card, else its LICENSE file, else its config."""
    for find in (_from_card, _from_text, _from_config):
        found = find(folder)
        if found is not None:
            return found
    return Licence(None)


def front_matter(text: str) -> dict[str, Any]:
    """The metadata at the top of a model card; empty where there is none that can be read."""
    block = _FRONT_MATTER.match(text)
    if block is None:
        return {}
    try:
        content = yaml.safe_load(block[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def card_data(folder: Path) -> dict[str, Any]:
    """The metadata of the model card in a folder; empty where there is none."""
    return front_matter(_text(folder, "README.md"))


@dataclass(frozen=True)
class ChosenLicence:
    """A licence that a publisher chose, as the hub has it.

    Attributes:
        id: One of the hub's identifiers.
        name: For `other`, what the licence is called.
    """

    id: str
    name: str | None = None

    def __str__(self) -> str:
        return self.id if self.name is None else f"{self.id} ({self.name})"


def chosen_licence(text: str, name: str | None = None, *, where: str | None = None) -> ChosenLicence:
    """Checks a choice by the hub's own rule: one of its identifiers; a licence that has none is `other` with a name.

    Args:
        text: The identifier as a user writes it.
        name: The name of a licence that has no identifier.
        where: Where it was chosen, for the message.

    Raises:
        RecipeError: The hub has no such identifier, or `other` has no name, or another one has.
    """
    known = hub_licences()
    chosen = text.strip().lower()
    if name is not None and chosen != "other":
        raise RecipeError(
            "only the licence `other` has a name of its own",
            where=where,
            remedy="choose `other`, or leave the name out",
        )
    if chosen not in known:
        near = did_you_mean(chosen, known) or "use one of the hub's identifiers, such as apache-2.0"
        raise RecipeError(
            f"{text!r} is not among the hub's licences",
            where=where,
            remedy=f"{near}; a licence that it has no identifier for is `other`, with a name of its own",
        )
    if chosen == "other" and name is None:
        raise RecipeError(
            "the licence `other` needs a name",
            where=where,
            remedy="give its name too, and put its text into a LICENSE file of the repository",
        )
    if name is not None and not _ID.fullmatch(name):
        raise RecipeError(
            f"{name!r} is not the name of a licence",
            where=where,
            remedy="use small letters, digits, dots and hyphens, for example coqui-public-model-license",
        )
    return ChosenLicence(chosen, name)


@cache
def hub_licences() -> dict[str, str]:
    """The hub's identifiers, each with the full name of the licence."""
    content = json.loads(resources.files("polysafe.checkpoint").joinpath("licences.json").read_text(encoding="utf-8"))
    found: dict[str, str] = content["licences"]
    return found


def licence_id(text: str) -> str | None:
    """The hub's name of a licence as users write it, None where it cannot be one."""
    name = text.strip().lower()
    return name if _ID.fullmatch(name) and name not in UNDECIDED else None


def _from_card(folder: Path) -> Licence | None:
    data = card_data(folder)
    stated = data.get("license")
    words = [word for word in (stated if isinstance(stated, list) else [stated]) if isinstance(word, str)]
    said = ", ".join([*words, *(name for name in [data.get("license_name")] if isinstance(name, str))])
    if not words:
        return None
    return Licence(licence_id(words[0]) if len(words) == 1 else None, said, "README.md")


def _from_text(folder: Path) -> Licence | None:
    for path in sorted(folder.glob("LICENSE*")):
        text = _text(folder, path.name)
        if text:
            known = next((name for pattern, name in _TEXTS if re.search(pattern, text)), None)
            return Licence(known, known or "a text of its own", path.name)
    return None


def _from_config(folder: Path) -> Licence | None:
    try:
        stated = json.loads(_text(folder, "config.json")).get("license")
    except (ValueError, AttributeError, RecursionError):
        return None
    return Licence(licence_id(stated), stated, "config.json") if isinstance(stated, str) and stated else None


def _text(folder: Path, name: str) -> str:
    """The beginning of a file of the folder; empty where there is none."""
    try:
        with file_inside(folder, name).open("rb") as file:
            return file.read(_LARGEST).decode("utf-8-sig", "replace")
    except (CheckpointError, OSError):
        return ""
