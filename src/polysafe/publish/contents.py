"""What would be published: every file with its size and hash, and nothing that the manifest does not vouch for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polysafe.card.card import card_files, render_card
from polysafe.card.data import Card
from polysafe.checkpoint.digest import hash_file
from polysafe.checkpoint.output import MANIFEST, RECORDS
from polysafe.checkpoint.sidecar import fits
from polysafe.checkpoint.verify import EXECUTED, read_manifest
from polysafe.errors import DataError, VerificationError
from polysafe.files.atomic import json_bytes
from polysafe.publish.leaks import Leak, leaks

EVALUATION = "evaluation"
"""Folder of a repository that holds what `--with-report` sends."""

_REPLACE = "replace it by what is behind it, if that may be published"
_RECIPE = f"{RECORDS}/recipe.yaml"
_REPORT = ("results.json", "report", "reproduce")
_ANSWERS = ("before", "after")
_WORDS = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"})
"""Vocabularies hold words of every kind, folders among them."""


@dataclass(frozen=True)
class Item:
    """A file that is to be published.

    Attributes:
        path: Where it will be in the repository.
        size: Its size in bytes.
        sha256: Its hash.
        source: The file, or its content where what is published differs from what is on disk.
    """

    path: str
    size: int
    sha256: str
    source: Path | bytes

    @property
    def blob(self) -> str:
        """The name that git gives to the content."""
        data = self.content()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    def content(self) -> bytes:
        """The bytes; for small files."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    def to_json(self) -> dict[str, Any]:
        """The entry as the manifest has it."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True)
class Publication:
    """What would be published.

    Attributes:
        repo: The repository, `owner/name`.
        public: Whether everybody may read it.
        edit: SHA-256 of the edit.
        card: The model card's data.
        items: Every file, the manifest last.
        leaks: File -> what it says about this machine, and what looks like a key in it.
    """

    repo: str
    public: bool
    edit: str
    card: Card
    items: tuple[Item, ...]
    leaks: dict[str, tuple[Leak, ...]]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(item.size for item in self.items)

    @property
    def objections(self) -> list[str]:
        """Why a push would be refused as things stand."""
        return [
            *([self.card.licence_question] if self.card.licence_question else []),
            *self._told(),
        ]

    def to_json(self) -> dict[str, Any]:
        """The publication in values that JSON can hold."""
        return {
            "repo": self.repo,
            "visibility": "public" if self.public else "private",
            "licence": self.card.settled_licence,
            "edit": self.edit,
            "bytes": self.size,
            "files": [item.to_json() for item in self.items],
            "objections": self.objections,
            "card": render_card(self.card),
        }

    def without(self, *, places: bool, keys: bool) -> Publication:
        """The same, sent although files tell of this machine (`places`), or hold what looks like a key (`keys`)."""
        forgiven = {secret for secret, given in ((False, places), (True, keys)) if given}
        left = {
            path: tuple(leak for leak in found if leak.secret not in forgiven) for path, found in self.leaks.items()
        }
        return replace(self, leaks={path: found for path, found in left.items() if found})

    def require_no_leaks(self) -> None:
        """Refuses to send what tells about this machine, and keys.

        Raises:
            VerificationError: Naming the files and what they tell.
        """
        if not self.leaks:
            return
        secret = any(leak.secret for found in self.leaks.values() for leak in found)
        raise VerificationError(
            "; ".join(self._told()),
            remedy="take the key out where it comes from, have its issuer revoke it, and make the model again; if it "
            "is none, send it with --with-keys"
            if secret
            else "correct it where it comes from (often `_name_or_path` in the config of a source) and make the "
            "model again; or send it as it is with --with-places",
        )

    def _told(self) -> list[str]:
        return [f"{path} holds {', '.join(leak.told for leak in found)}" for path, found in self.leaks.items()]


def gather(
    model: Path, repo: str, card: Card, *, public: bool = False, report: Path | None = None, answers: bool = False
) -> Publication:
    """What of an output would be published, as it would be there.

    The recipe goes as the card shows it, without the places of this machine; the manifest that is published is that of
    the published files.

    Args:
        model: The output, unchanged since it was written.
        repo: The repository.
        card: The card's data, with the repository's name and the chosen licence.
        public: Whether everybody may read it.
        report: Folder of an evaluation whose results, report and reproduce folder go too.
        answers: Whether its answers go as well.

    Raises:
        DataError: The evaluation is not there.
        VerificationError: A file is a link, or code.
    """
    manifest = read_manifest(model)
    for entry in manifest["files"]:
        _require_plain(model, entry["path"])
    replaced = card_files(card)
    if card.recipe is not None:
        replaced[_RECIPE] = card.recipe.encode()
    items = [
        _replaced(entry["path"], replaced[entry["path"]])
        if entry["path"] in replaced
        else Item(entry["path"], entry["size"], entry["sha256"], model / entry["path"])
        for entry in manifest["files"]
    ]
    items += [] if report is None else _evaluation(report, answers=answers)
    published = {**manifest, "files": [item.to_json() for item in sorted(items, key=lambda item: item.path)]}
    items.append(_replaced(MANIFEST, json_bytes(published)))
    found = {item.path: tuple(_leaks(item, model)) for item in items}
    told = {path: about for path, about in found.items() if about}
    return Publication(repo, public, manifest["edit"], card, tuple(items), told)


def _replaced(path: str, data: bytes) -> Item:
    return Item(path, len(data), hashlib.sha256(data).hexdigest(), data)


def _evaluation(folder: Path, *, answers: bool) -> Iterator[Item]:
    names = (*_REPORT, *(_ANSWERS if answers else ()))
    if not any((folder / name).exists() for name in _REPORT):
        raise DataError(
            "there is neither a report nor results here",
            where=folder,
            remedy="name the folder that `polysafe evaluate` wrote",
        )
    for path in sorted(path for name in names for path in (folder / name, *(folder / name).rglob("*"))):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_symlink() and not hidden:
            raise VerificationError(
                "is a link; only files of the evaluation itself are published",
                where=path,
                remedy=_REPLACE,
            )
        if path.is_file() and not hidden and (answers or path.name != "records.jsonl"):
            yield Item(f"{EVALUATION}/{name.as_posix()}", path.stat().st_size, hash_file(path), path)


def _require_plain(model: Path, name: str) -> None:
    """A file of the model itself, which loading does not run."""
    if fits(Path(name).name, EXECUTED):
        raise VerificationError(
            "is code or a pickle, which is code; neither is published",
            where=model / name,
            remedy="make the model again",
        )
    for place in (Path(name), *Path(name).parents):
        if (model / place).is_symlink() and place != Path():
            raise VerificationError(
                "is a link; only files of the model itself are published", where=model / place, remedy=_REPLACE
            )


def _leaks(item: Item, model: Path) -> Iterator[Leak]:
    name = Path(item.path)
    if name.suffix != ".safetensors":
        said = name.parts[0] == EVALUATION
        yield from leaks(item.content(), model, places=name.name not in _WORDS, of_a_model=said)
