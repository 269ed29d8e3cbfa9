"""Anchors from any table and from any set: a row is kept if all languages have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polysafe.data.anchors import ParallelPrompts
from polysafe.data.languages import code_of
from polysafe.data.prompts import Kind, PromptSet
from polysafe.data.sets.registry import benchmark, is_table, load_set
from polysafe.data.sets.table import load_table
from polysafe.data.tables import as_text, read_table
from polysafe.errors import DataError

ID_COLUMN = "id"


@dataclass(frozen=True)
class AnchorRows:
    """Rows that an edit is fitted to.

    Attributes:
        parallel: Their prompts in the languages that were asked for.
        prompts: The same rows as a set, in all languages that it has them in, to be compared with sets that are
            reported on.
    """

    parallel: ParallelPrompts
    prompts: PromptSet


def load_anchors(
    source: str | Path,
    kind: Kind,
    languages: Sequence[str],
    *,
    complete_in: Sequence[str] = (),
    limit: int | None = None,
    id_column: str = ID_COLUMN,
    data: Path | None = None,
) -> AnchorRows:
    """Reads anchors of one kind.

    Args:
        source: A set with its parts, for example `polyrefuse.train`, or a table that `load_table` reads; a column that
            is named as one of the languages holds it.
        kind: Whether they should be refused.
        languages: Languages, as the anchors are to name them.
        complete_in: Languages that a row must have besides.
        limit: Number of rows to keep, the first ones that are complete.
        id_column: Column of a table that names its rows; without it they are numbered.
        data: Folder with a folder per set.

    Raises:
        DataError: The set or file cannot be read, lacks a language or prompts of this kind, repeats an id, or has no
            complete row.
    """
    found = _load(source, kind, languages, id_column, data)
    codes = {spelling: code_of(spelling) for spelling in dict.fromkeys((*languages, *complete_in))}
    texts: dict[str, dict[str, str]] = {code: {} for code in codes.values()}
    for prompt in found.prompts:
        if prompt.language in texts and (text := prompt.text.strip()):
            texts[prompt.language][prompt.parallel] = text
    for spelling, code in codes.items():
        if not texts[code]:
            raise DataError(
                f"has no {kind} prompts in {spelling!r}",
                where=found.origin,
                remedy=f"languages: {', '.join(found.languages)}; a column of that name holds one",
            )
    rows = dict.fromkeys(row for column in texts.values() for row in column)
    complete = [row for row in texts[codes[languages[0]]] if all(row in column for column in texts.values())]
    if not complete:
        raise DataError(f"no row has {', '.join(codes)} all filled", where=found.origin)
    kept = complete[:limit]
    chosen = {spelling: tuple(texts[codes[spelling]][row] for row in kept) for spelling in languages}
    names = tuple(row.strip() for row in kept)
    parallel = ParallelPrompts(names, chosen, len(rows) - len(complete), found.origin)
    wanted = frozenset(kept)
    return AnchorRows(parallel, replace(found, prompts=tuple(p for p in found.prompts if p.parallel in wanted)))


def harmless_part(name: str | Path) -> str:
    """The harmless part of a set that has both kinds, for example `polyrefuse.harmless.train` of `polyrefuse.train`.

    Raises:
        DataError: The set has one kind of prompts.
    """
    bare, *words = str(name).split(".")
    known = None if is_table(name) else benchmark(bare)
    if known is None or "harmless" not in known.dimensions.get("kind", ()):
        raise DataError(
            f"{str(name)!r} holds one kind of prompts; anchors need harmful and harmless ones",
            remedy="name both: `{harmful: {set: …}, harmless: {set: polyrefuse.harmless.train}}`",
        )
    return known.full_name({**known.parts_of(words), "kind": "harmless"})


def load_texts(path: Path) -> tuple[str, ...]:
    """Every text in any column of a table, for comparing with anchors."""
    cells = (as_text(value).strip() for row in read_table(path).rows for value in row.values())
    return tuple(text for text in cells if text)


def _load(source: str | Path, kind: Kind, languages: Sequence[str], id_column: str, data: Path | None) -> PromptSet:
    if is_table(source):
        path = Path(source)
        columns = {} if id_column == ID_COLUMN else {"id": id_column}
        return load_table(path, path.stem, kind=kind, columns=columns, wide=languages)
    chosen = load_set(source, data=data).of_kind(kind)
    if not chosen:
        raise DataError(
            f"{chosen.name!r} has no {kind} prompts", remedy="name another set, or another part of this one"
        )
    return chosen
