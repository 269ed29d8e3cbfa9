"""What a benchmark is: its description and the function that reads it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from polysafe.data.anchors import normalised
from polysafe.data.hub import data_files, find_data_files, hub_data
from polysafe.data.languages import language
from polysafe.data.prompts import Prompt, PromptSet
from polysafe.data.tables import Table, read_table
from polysafe.errors import DataError, did_you_mean
from polysafe.registry import Registry

Entry = TypeVar("Entry")
"""What a benchmark holds: prompts, or questions with a right answer."""

PUBLISHED = ""
"""The one choice of a dimension that a set does not have."""


@dataclass(frozen=True)
class Request:
    """What a reader is asked for.

    Attributes:
        folder: Folder of the set, in the layout of its source repository or of the hub.
        parts: Dimension -> the chosen part; a dimension of which all parts are wanted is not in it.
        languages: Codes of the wanted languages, None for all.
        columns: Field -> column, where the user says so.
    """

    folder: Path
    parts: Mapping[str, str] = field(default_factory=dict)
    languages: frozenset[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def wants(self, code: str) -> bool:
        """Whether a language is wanted."""
        return self.languages is None or code in self.languages

    def wants_part(self, dimension: str, part: str) -> bool:
        """Whether a part is wanted."""
        return self.parts.get(dimension, part) == part

    def table(self, local: str, *, config: str | None = None, split: str | None = None) -> Table:
        """The table `local` of the source repository, or the hub's table of a configuration and split.

        Raises:
            DataError: There is neither, or it cannot be read.
        """
        path = self.folder / local
        return read_table(path) if path.is_file() else joined([read_table(path) for path in self.hub(config, split)])

    def tables(self, local: Mapping[str, str], configs: Mapping[str, str], split: str) -> Iterator[tuple[str, Table]]:
        """(language, table) of every wanted language that there is, in the order of `configs`.

        Args:
            local: Language -> its table in the source repository.
            configs: Language -> its configuration on the hub.
            split: The split on the hub.

        Raises:
            DataError: A table cannot be read.
        """
        wanted = {code: config for code, config in configs.items() if self.wants(code)}
        files = {code: (self.folder / name,) for code, name in local.items() if (self.folder / name).is_file()}
        hub = find_data_files(self.folder, [config for code, config in wanted.items() if code not in files], split)
        for code, config in wanted.items():
            if found := files.get(code) or hub.get(config):
                yield code, joined([read_table(file) for file in found])

    def hub(self, config: str | None = None, split: str | None = None) -> tuple[Path, ...]:
        """Files of a configuration and split in the hub's layout.

        Raises:
            DataError: There is none.
        """
        return data_files(self.folder, config=config, split=split)


@dataclass(frozen=True)
class Benchmark(Generic[Entry]):
    """A set of prompts or questions that polysafe can read.

    Attributes:
        name: Name; also the name of its folder.
        title: What it is, in a few words.
        languages: Codes of the languages that were published; empty where nobody knows before reading.
        licence: Licence as stated by the source.
        source: Where it comes from.
        read: Function that yields its prompts or questions; those without a text are counted and left out.
        hub: Its id on the hub, None where no copy is known.
        dimensions: Dimension -> its parts, for example `split` -> `test`, `train`.
        defaults: Dimension -> the part that is meant where none is said; all parts where it is not in it.
        notes: What a reader of results should know.
        overlaps: Other set with some of the same prompts, translated or reworded -> the part of this one that holds
            them, empty for any. One of the two has to say so.
    """

    name: str
    title: str
    languages: tuple[str, ...]
    licence: str
    source: str
    read: Callable[[Request], Iterator[Entry]]
    hub: str | None = None
    dimensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    overlaps: Mapping[str, str] = field(default_factory=dict)

    def parts_of(self, words: Iterable[str]) -> dict[str, str]:
        """Dimension -> part, for the words after the set's name.

        Raises:
            DataError: A word is no part of the set, or two are of one dimension.
        """
        chosen: dict[str, str] = {}
        known = {part: dimension for dimension, parts in self.dimensions.items() for part in parts}
        for word in words:
            if word not in known or known[word] in chosen:
                raise DataError(
                    f"{self.name!r} has no part {word!r}"
                    if word not in known
                    else f"{word!r} contradicts another part",
                    remedy=did_you_mean(word, known) or f"parts: {', '.join(known) or 'none'}",
                )
            chosen[known[word]] = word
        return chosen

    def full_name(self, parts: Mapping[str, str]) -> str:
        """Name of a selection: the set's name and the parts that are not the default."""
        words = [parts[key] for key in self.dimensions if key in parts and parts[key] != self.defaults.get(key)]
        return ".".join((self.name, *words))

    def folder(self, data: Path | None, revision: str | None) -> tuple[Path, str]:
        """The folder of the set and where it came from.

        Raises:
            DataError: It is not there, or cannot be had from the hub.
        """
        if data is not None:
            if not (found := data / self.name).is_dir():
                if not data.is_dir():
                    raise DataError(
                        "there is no such folder",
                        where=data,
                        remedy=f"name the one (`--data`, or `data` in a recipe) that has a folder {self.name!r} in it",
                    )
                raise DataError(f"has no folder {self.name!r}", where=data, remedy=f"put {self.source} into it")
            return found, str(found)
        if self.hub is None:
            raise DataError(
                f"{self.name!r} has no known copy on the hub",
                remedy=f"put {self.source} into a folder {self.name!r} and name the folder above it (`--data`)",
            )
        return hub_data(self.hub, revision), f"{self.hub}@{revision}"


def benchmarks(what: str, group: str, package: str, *, hint: str = "") -> Registry[Benchmark[Entry]]:
    """Finds benchmarks by name: every one that a file of a package holds, and those of other packages.

    Args:
        what: As for `Registry`.
        group: As for `Registry`.
        package: Dotted name of the package.
        hint: As for `Registry`.
    """

    def names(value: object) -> tuple[str, ...]:
        return (value.name,) if isinstance(value, Benchmark) else ()

    return Registry(what, group, (package,), names, error=DataError, hint=hint)


def collect(
    name: str, prompts: Iterable[Prompt], *, licence: str, origin: str, overlaps: frozenset[str] = frozenset()
) -> PromptSet:
    """A set of the prompts that have a text, by language; the others are counted.

    Raises:
        DataError: There is no prompt, or two have one name.
    """
    by_language: dict[str, list[Prompt]] = {}
    dropped: Counter[str] = Counter()
    for prompt in prompts:
        rows = by_language.setdefault(prompt.language, [])
        if prompt.text.strip():
            rows.append(prompt)
        else:
            dropped[f"no text in {prompt.language}"] += 1
    kept = tuple(prompt for rows in by_language.values() for prompt in rows)
    if not kept:
        raise DataError("holds no prompt", where=origin)
    return PromptSet(name, kept, licence, origin, overlaps, tuple(sorted(dropped.items())))


def joined(tables: list[Table]) -> Table:
    """The rows of several tables, one after the other."""
    columns = dict.fromkeys(column for table in tables for column in table.columns)
    return Table(tables[0].path, tuple(columns), tuple(row for table in tables for row in table.rows))


def content_id(text: str) -> str:
    """A name that depends on the text alone, so that every copy of a set in any order names a prompt alike."""
    return hashlib.sha256((normalised(text) or text).encode()).hexdigest()[:12]


def category_of(text: str) -> str | None:
    """A category with single spaces; None for none."""
    return " ".join(text.split()) or None


def by_language(files: Iterable[tuple[str, Path]], request: Request) -> dict[str, Path]:
    """Code -> file, of the wanted languages in the order of the table of languages.

    Args:
        files: (spelling of the language, file).
        request: What is wanted.
    """
    found = {language(spelling).code: path for spelling, path in files}
    return {code: found[code] for code in sorted(found) if request.wants(code)}
