"""The small files that travel with the weights: config, generation config, tokenizer, chat template.

They are copied byte for byte. Loading and saving a tokenizer rewrites it, and other runtimes then read it differently.
Only what is data by its name and its first bytes is copied: never code, never a pickle.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from polysafe.checkpoint.dtypes import TORCH_NAMES
from polysafe.checkpoint.source import Checkpoint, bytes_up_to, config_text, file_inside
from polysafe.errors import CheckpointError
from polysafe.files.json_file import remembered
from polysafe.files.plain import first_bytes

MODEL_FILES = ("config.json",)
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken")
"""At least one of them makes a tokenizer."""
CHAT_TEMPLATES = "chat_template*"
DONOR_FILES = (
    *TOKENIZER_FILES,
    "generation_config.json",
    CHAT_TEMPLATES,
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "additional_chat_templates/*",
)
LARGEST = 200 << 20
"""Most bytes of one of them, and of all together: they are read at once."""

_DATA = re.compile(
    r"\.(json|jsonl|txt|jinja|model|tiktoken|bpe|spm|vocab|tsv|yaml|yml)$|\.model\.v\d+\w*$", re.IGNORECASE
)
_EXECUTED = (*(bytes([0x80, protocol]) for protocol in range(2, 6)), b"PK\x03\x04", b"\x7fELF")
"""First bytes of pickles, of the archives that hold them, and of programs."""


@dataclass(frozen=True, slots=True)
class SideFile:
    """A file of the output that holds no weights."""

    name: str
    content: bytes


def side_files(model: Checkpoint, donor: Checkpoint, dtype: str | None = None) -> list[SideFile]:
    """Everything but the weights of an output.

    Args:
        model: Gives the config.
        donor: Gives tokenizer, chat template and generation config, which name the same special tokens.
        dtype: Storage type of the output if it is not that of `model`; only then the config is rewritten, because a
            loader trusts the type that it states.

    Raises:
        CheckpointError: A file is a link that leads out of the checkpoint, or far too large to be what its name says.
    """
    named = [(model, MODEL_FILES), (donor, DONOR_FILES)]
    places = [(each, name) for each, patterns in named for name in matching(each.root, patterns)]
    paths = [file_inside(each.root, name) for each, name in places]
    if sum(path.stat().st_size for path in paths) > LARGEST:
        largest = max(paths, key=lambda path: path.stat().st_size)
        raise CheckpointError(
            f"is the largest of files that are together larger than {LARGEST >> 20} MiB, too large for a tokenizer",
            where=largest,
        )
    files = [SideFile(name, bytes_up_to(path, LARGEST)) for (_, name), path in zip(places, paths, strict=True)]
    return [_with_dtype(file, model, dtype) if file.name == "config.json" else file for file in files]


def _with_dtype(file: SideFile, model: Checkpoint, dtype: str | None) -> SideFile:
    key = "dtype" if "dtype" in model.config else "torch_dtype"
    if dtype is None or model.config.get(key) == TORCH_NAMES[dtype]:
        return file
    return SideFile(file.name, config_text({**model.config, key: TORCH_NAMES[dtype]}))


def matching(root: Path, patterns: tuple[str, ...]) -> Iterator[str]:
    """Names of the files of a folder that match a pattern and hold data, in order."""
    return (name for name in _named(root, patterns) if _is_data(root / name))


def left_out(donor: Checkpoint) -> list[str]:
    """Names of files that belong to a tokenizer by their names and are no data: code, pickles, what nobody knows."""
    return [name for name in _named(donor.root, DONOR_FILES) if not _is_data(donor.root / name)]


def has_chat_template(donor: Checkpoint) -> bool:
    """Whether the files that are copied from a model hold a chat template, in a file of its own or in another."""
    if any(matching(donor.root, (CHAT_TEMPLATES,))):
        return True
    return bool(remembered(donor.root / "tokenizer_config.json").get("chat_template"))


def fits(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the name of a file in a folder matches a pattern; `*` stands for no `/`."""
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def _named(root: Path, patterns: tuple[str, ...]) -> Iterator[str]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if fits(name, patterns) and not path.is_dir():
            yield name


def _is_data(path: Path) -> bool:
    if not _DATA.search(path.name):
        return False
    try:
        return not first_bytes(path, 4).startswith(_EXECUTED)
    except OSError:
        return True  # a broken link or a pipe, which is refused by name when it is copied
