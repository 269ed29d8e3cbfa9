"""Checkpoints on the Hugging Face hub, at a pinned commit, through its own cache."""

from __future__ import annotations

import re
from pathlib import Path

from polysafe.checkpoint.source import is_complete
from polysafe.errors import CheckpointError

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


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
