"""Checkpoints on the Hugging Face hub, at a pinned commit, through its own cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from polysafe.checkpoint.source import Checkpoint, is_complete
from polysafe.errors import CheckpointError

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_WANTED = [
    *("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"),
    *("README.md", "LICENSE*"),  # they say what may be done with the model
]
_CACHE = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)", re.ASCII)
_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_ORIGIN = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})", re.ASCII)


@dataclass(frozen=True)
class HubId:
    """A model on the hub at a commit.

    Attributes:
        id: `organisation/name`.
        revision: The commit, 40 hexadecimal digits.

    Raises:
        CheckpointError: They are not of that form.
    """

    id: str
    revision: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id) or not COMMIT.match(self.revision):
            raise CheckpointError("is not a model on the hub at a commit", where=f"{self.id}@{self.revision}")


def hub_ids(checkpoint: Checkpoint) -> tuple[HubId, ...]:
    """The models on the hub that a checkpoint's files come from, as far as its name and the hub's cache tell."""
    named = _ORIGIN.fullmatch(checkpoint.origin)
    found = [HubId(named["id"], named["revision"])] if named else []
    for folder in dict.fromkeys((*checkpoint.folders, checkpoint.root)):
        cached = _CACHE.fullmatch(folder.parent.parent.name) if folder.parent.name == "snapshots" else None
        if cached and COMMIT.match(folder.name):
            found.append(HubId(f"{cached['owner']}/{cached['name']}", folder.name))
    return tuple(dict.fromkeys(found))


def hub_snapshot(repository: str, revision: str) -> Path:
    """The folder of a model at a commit: from the cache if all of it is there, else downloaded.

    Weights as pickles and code are never fetched.

    Raises:
        CheckpointError: The revision is no commit, or the model cannot be had.
    """
    if not COMMIT.match(revision):
        raise CheckpointError(
            f"the revision {revision!r} is not a commit; a branch can change under a recipe",
            where=repository,
            remedy="name the 40-digit commit that the model's page on the hub shows under 'Files and versions'",
        )
    cached = _cached(repository, revision)
    return cached if cached is not None and is_complete(cached) else _download(repository, revision)


def _cached(repository: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=_WANTED))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise CheckpointError(f"is not a name of a model on the hub: {error}", where=repository) from error


def _download(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(
            f"cannot be fetched at {revision}: {error}",
            where=repository,
            remedy="check name, commit, access rights and connection; or download it elsewhere and use `path:`",
        ) from error
