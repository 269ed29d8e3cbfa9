"""Publishes an output: verified before, compared with the hub's own listing afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict, Unpack

from polysafe._version import __version__
from polysafe.card.data import Card
from polysafe.card.store import changed_card, load_card, update_card
from polysafe.checkpoint.output import MANIFEST, RECORDS
from polysafe.checkpoint.verify import read_manifest, verify_output
from polysafe.errors import OutputError, RecipeError, VerificationError
from polysafe.progress import Meter, Progress, tell
from polysafe.publish.contents import EVALUATION, Item, Publication, gather
from polysafe.publish.hub import AGAIN, Remote, Repository
from polysafe.secret import keep_secret

_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_OURS = ("*.safetensors", "*.safetensors.index.json", f"{RECORDS}/*", f"{EVALUATION}/*")
"""What an earlier push may have left that is not part of the model any more."""


@dataclass(frozen=True)
class Pushed:
    """What was published.

    Attributes:
        publication: What was sent.
        commit: The commit that holds it.
        private: Whether only the owners of the repository can read it.
        unchanged: Files that were there already.
        foreign: Files of the repository that are not of this model; they were left alone.
    """

    publication: Publication
    commit: str
    private: bool
    unchanged: tuple[str, ...]
    foreign: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The result in values that JSON can hold."""
        told = self.publication.to_json()
        del told["card"]
        return {
            **told,
            "visibility": "private" if self.private else "public",
            "commit": self.commit,
            "unchanged": list(self.unchanged),
            "foreign": list(self.foreign),
        }


class Wanted(TypedDict, total=False):
    """What is sent, and what is said of it.

    Attributes:
        public: Whether everybody may read it. A repository that is public already is not used without this.
        licence: The hub's identifier of the licence, where those of the sources do not settle it. The card keeps it.
        licence_name: For the licence `other`, its name.
        report: Folder of an evaluation of this model, whose results, report and reproduce folder go too.
        answers: Whether the answers of that evaluation go as well.
        places: Send files that name folders of this machine.
        keys: Send files with what looks like a key.
    """

    public: bool
    licence: str | None
    licence_name: str | None
    report: Path | None
    answers: bool
    places: bool
    keys: bool


def preview(model: Path, repo: str, *, progress: Progress = tell, **wanted: Unpack[Wanted]) -> Publication:
    """What a push would send. Writes nothing and contacts nobody.

    Raises:
        VerificationError: The output is not as it was written.
        PolysafeError: As for `push`.
    """
    _check_name(repo)
    _verify(model, progress)
    return _gathered(model, repo, changed_card(model, load_card(model), **_said(repo, wanted)), wanted)


def push(
    model: Path,
    repo: str,
    *,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Progress = tell,
    **wanted: Unpack[Wanted],
) -> Pushed:
    """Publishes an output on the hub. Interrupted, it goes on when it is called again.

    Args:
        model: The output.
        repo: The repository, `owner/name`; it is made if it is not there.
        token: Token of the hub; by default the one that its client finds by itself.
        endpoint: Address of the hub; by default the one that its client knows.
        progress: Called as `progress(what, done, total)`.
        wanted: What is sent, and what is said of it.

    Raises:
        VerificationError: The output is not as it was written, something in it tells about this machine, or the hub
            does not hold what was sent.
        RecipeError: The licence is not settled, or the name is none.
        OutputError: The repository cannot be used.
        ResourceError: The hub or the connection failed; calling again goes on from there.
    """
    _check_name(repo)
    keep_secret(token or "")
    card = update_card(model, **_said(repo, wanted))
    if card.licence_question:
        raise RecipeError(
            card.licence_question,
            where=model,
            remedy="read the licences of all sources, then name one that they allow: --license apache-2.0",
        )
    _verify(model, progress)
    publication = _gathered(model, repo, card, wanted)
    publication.require_no_leaks()
    return _publish(publication, Repository(repo, token, endpoint), progress)


def _said(repo: str, wanted: Wanted) -> dict[str, Any]:
    """What a card is told."""
    return {"licence": wanted.get("licence"), "licence_name": wanted.get("licence_name"), "name": repo}


def _gathered(model: Path, repo: str, card: Card, wanted: Wanted) -> Publication:
    public, answers = wanted.get("public", False), wanted.get("answers", False)
    found = gather(model, repo, card, public=public, report=wanted.get("report"), answers=answers)
    return found.without(places=wanted.get("places", False), keys=wanted.get("keys", False))


def _publish(publication: Publication, repository: Repository, progress: Progress) -> Pushed:
    items = publication.items
    private = _open(repository, public=publication.public)
    before = repository.files()
    _check_foreign(repository, before)
    names = {item.path for item in items}
    others = [path for path in before if path not in names]
    stale = [path for path in others if any(fnmatch(path, pattern) for pattern in _OURS)]
    commit = repository.upload(items, stale, _message(publication), progress)
    _compare(repository, commit, items)
    unchanged = tuple(item.path for item in items if item.path in before and before[item.path].holds(item))
    foreign = tuple(path for path in others if path not in stale and path != ".gitattributes")
    return Pushed(publication, commit, private, unchanged, foreign)


def _check_name(repo: str) -> None:
    if not _NAME.fullmatch(repo):
        raise RecipeError(f"{repo!r} is not the name of a repository", remedy="use OWNER/NAME, as on the hub")


def _verify(model: Path, progress: Progress) -> None:
    total = sum(entry["size"] for entry in read_manifest(model)["files"])
    report = verify_output(model, Meter(progress, "verifying", total))
    if not report.ok:
        raise VerificationError(
            "; ".join(report.problems),
            where=model,
            remedy="only what its manifest vouches for is published; make the model again",
        )


def _open(repository: Repository, *, public: bool) -> bool:
    """Makes the repository if it is not there, and tells whether it is private."""
    repository.check_access()
    private = repository.is_private()
    if private is None:
        repository.create(private=not public)
        private = repository.is_private()
    if not private and not public:
        raise OutputError(
            "this repository is public, and you did not ask for that",
            where=repository.name,
            remedy="add --public, choose another name, or make it private in its settings first",
        )
    return bool(private)


def _check_foreign(repository: Repository, files: Mapping[str, Remote]) -> None:
    if MANIFEST not in files and any(fnmatch(path, "*.safetensors") or path == "config.json" for path in files):
        raise OutputError(
            "holds a model that polysafe did not put there", where=repository.name, remedy="choose another name"
        )


def _message(publication: Publication) -> str:
    return f"Publish {publication.card.label} (polysafe {__version__}, edit {publication.edit})"


def _compare(repository: Repository, commit: str, items: Iterable[Item]) -> None:
    """What the hub holds now has to be what was sent, by its own listing."""
    files = repository.files(commit)
    wrong = [item.path for item in items if item.path not in files or not files[item.path].holds(item)]
    if wrong:
        raise VerificationError(
            f"the hub does not hold what was sent: {', '.join(wrong)}", where=repository.name, remedy=AGAIN
        )
