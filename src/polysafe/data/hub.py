"""Data sets on the Hugging Face hub, at a pinned commit, and the files inside a snapshot of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from polysafe.checkpoint.hub import COMMIT
from polysafe.data.tables import SUFFIXES
from polysafe.errors import DataError

_WANTED = ["README.md", *(f"*{suffix}" for suffix in SUFFIXES)]
_SPLITS = frozenset({"train", "validation", "test", "dev", "val"})
_NOT_DATA = frozenset({"dataset_infos.json", "dataset_dict.json", "dataset_info.json", "state.json"})


def hub_data(repository: str, revision: str | None) -> Path:
    """The folder of a data set at a commit, through the hub's cache; offline, what the cache holds.

    Tables only: no code of the repository is fetched.

    Raises:
        DataError: The revision is no commit, or the data set cannot be had.
    """
    if revision is None or not COMMIT.match(revision):
        raise DataError(
            "a data set of the hub needs a commit" if revision is None else f"the revision {revision!r} is no commit",
            where=repository,
            remedy="download it and name the folder that its folder is in (`--data`, or `data` in a recipe); or, in "
            "Python, name the 40-digit commit that its page on the hub shows under 'Files and versions' (`revision`)",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=_WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise DataError(
            f"cannot be fetched at {revision}: {error}",
            where=repository,
            remedy="check name, commit, access rights and connection; or download it elsewhere and name the folder",
        ) from error


def data_files(folder: Path, *, config: str | None = None, split: str | None = None) -> tuple[Path, ...]:
    """The tables of one configuration and split in a snapshot, sorted.

    The data set's card decides where it lists its files; otherwise the words in their paths do. Where no path names a
    split, all files belong to every one.

    Args:
        folder: The snapshot.
        config: Name of the configuration, None for the only one.
        split: Name of the split, None for all files.

    Raises:
        DataError: There is none.
    """
    found = find_data_files(folder, [config], split).get(config)
    if found is None:
        wanted = " ".join(f"{kind} {name!r}" for kind, name in (("config", config), ("split", split)) if name)
        names = [str(path.relative_to(folder)) for path in _tables(folder)]
        raise DataError(
            f"has no table of {wanted or 'any kind'}",
            where=folder,
            remedy=f"tables: {', '.join(names[:8]) or 'none'}{' …' if len(names) > 8 else ''}",
        )
    return found


def find_data_files(
    folder: Path, configs: Iterable[str | None], split: str | None
) -> dict[str | None, tuple[Path, ...]]:
    """Configuration -> its tables of a split, as `data_files` finds them; those that have none are not in it."""
    card, tables = _card(folder), _tables(folder)
    found = {}
    for config in configs:
        listed = _listed_in_card(card, folder, config, split)
        files = listed if listed is not None else _by_words(tables, folder, config, split)
        if files:
            found[config] = tuple(sorted(files))
    return found


def _tables(folder: Path) -> list[Path]:
    def hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.name not in _NOT_DATA and path.is_file() and not hidden(path)
    )


def _words(path: Path, folder: Path) -> str:
    """A path as words between hyphens, so that `val` is not found in `evaluation`."""
    return _hyphens(str(path.relative_to(folder).with_suffix("")))


def _hyphens(text: str) -> str:
    return f"-{re.sub(r'[^0-9a-z]+', '-', text.casefold()).strip('-')}-"


def _by_words(tables: list[Path], folder: Path, config: str | None, split: str | None) -> list[Path]:
    if config is not None:
        tables = [path for path in tables if _hyphens(config) in _words(path, folder)]
    if split is None:
        return tables
    named = [path for path in tables if _hyphens(split) in _words(path, folder)]
    other = any(_hyphens(word) in _words(path, folder) for path in tables for word in _SPLITS)
    return named if named or other else tables


def _listed_in_card(card: Mapping[str, Any], folder: Path, config: str | None, split: str | None) -> list[Path] | None:
    """Files that the card lists; None where it lists none or does not have the configuration."""
    entries = [entry for entry in card.get("configs") or () if isinstance(entry, dict)]
    chosen = [entry for entry in entries if config is None or entry.get("config_name") == config]
    patterns = [pattern for entry in chosen for name, pattern in _data_files(entry) if split in {None, name}]
    inside = [path for pattern in patterns if _is_inside(pattern) for path in folder.glob(pattern)]
    return [path for path in inside if path.is_file()] or None


def _is_inside(pattern: str) -> bool:
    return bool(pattern) and not pattern.startswith("/") and ".." not in pattern.split("/")


def _data_files(entry: Mapping[str, Any]) -> Iterator[tuple[str | None, str]]:
    """(split, pattern) of a configuration; a card may give one pattern, a list, or a list of splits."""
    files = entry.get("data_files")
    for item in files if isinstance(files, list) else [files]:
        name, paths = (item.get("split"), item.get("path")) if isinstance(item, dict) else (None, item)
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                yield name, path


def _card(folder: Path) -> Mapping[str, Any]:
    """The YAML head of the data set's README; empty where there is none that can be read."""
    import yaml

    try:
        parts = (folder / "README.md").read_text(encoding="utf-8-sig").split("---\n", 2)
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return head if isinstance(head, dict) else {}
