"""Finds benchmarks of prompts by name, and knows which of them share prompts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from polysafe.data.anchors import normalised
from polysafe.data.languages import language
from polysafe.data.prompts import Kind, Prompt, PromptSet
from polysafe.data.sets import table
from polysafe.data.sets.base import Benchmark, Request, benchmarks, collect
from polysafe.data.tables import SUFFIXES
from polysafe.errors import DataError
from polysafe.registry import Registry

GROUP = "polysafe.sets"
_SETS: Registry[Benchmark[Prompt]] = benchmarks("set", GROUP, "polysafe.data.sets", hint="; or a table of your own")
_SHOWN = 3


def set_names() -> tuple[str, ...]:
    """Names of all benchmarks."""
    return _SETS.names()


def benchmark(name: str) -> Benchmark[Prompt]:
    """The benchmark called `name`.

    Raises:
        DataError: There is none.
    """
    return _SETS.get(name)


def is_table(name: str | Path) -> bool:
    """Whether a set is named by the file that holds it."""
    return isinstance(name, Path) or name.lower().endswith(SUFFIXES)


def load_set(
    name: str | Path,
    *,
    kind: Kind = "harmful",
    data: Path | None = None,
    revision: str | None = None,
    languages: Collection[str] | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    all_languages: bool = True,
) -> PromptSet:
    """Reads a benchmark, from a folder or from the hub, or a table of one's own.

    Args:
        name: Its name, and the parts that are wanted: `polyrefuse.harmless.val`, `harmbench.standard`; or the path of a
            table that `load_table` reads, whose language may be said by its name or by a single one of `languages`.
        kind: What the prompts of a table are; a benchmark knows.
        data: Folder with a folder per set, in the layout of the source or of the hub; without it the hub is asked.
        revision: Commit on the hub.
        languages: Languages that are wanted, in any spelling; all that there are by default.
        limit: Number of parallel rows to keep.
        columns: Field -> column, for tables and for sets whose columns are not certain.
        all_languages: Whether the set has to have every wanted language, or one of them at least.

    Raises:
        DataError: There is no such set, part, folder or language, or the files are not what they have to be.
    """
    codes = None if languages is None else tuple(dict.fromkeys(language(each).code for each in languages))
    if is_table(name):
        spoken = codes[0] if codes is not None and len(codes) == 1 else None
        own = table.load_table(Path(name), Path(name).stem, kind=kind, columns=columns, spoken=spoken)
        return own.select(codes, limit, all_of_them=all_languages)
    bare, *words = str(name).split(".")
    found = benchmark(bare)
    chosen = found.parts_of(words)
    folder, origin = found.folder(data, revision)
    parts = {**found.defaults, **chosen}
    wanted = frozenset(codes) if codes is not None else None
    prompts = found.read(Request(folder, parts, wanted, columns or {}))
    full = found.full_name(parts)
    loaded = collect(full, prompts, licence=found.licence, origin=origin, overlaps=_overlaps(found, parts))
    return loaded.select(codes, limit, all_of_them=all_languages)


def require_disjoint(fit: PromptSet, report: PromptSet) -> None:
    """Refuses to report on prompts that something was fitted to.

    Prompts are compared by normalised text, rewritten ones by what they were made of, and within one family of sets by
    their parallel names, so that a set is not apart from its own translation (tables are of one family if they are one
    file). The ids of shared ones are told, their texts are not. Sets that are known to share prompts under other
    wordings are refused as well.

    Raises:
        DataError: The sets share prompts, or are known to.
    """
    family, other = (_family(each) for each in (fit, report))
    texts = {normalised(prompt.underlying.text) for prompt in fit.prompts}
    rows = {prompt.parallel for prompt in fit.prompts} if family == other else frozenset[str]()
    shared = [p.id for p in report.prompts if p.parallel in rows or normalised(p.underlying.text) in texts]
    harmful = all(any(prompt.kind == "harmful" for prompt in each.prompts) for each in (fit, report))
    if shared:
        more = f" and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        raise DataError(
            f"{len(shared)} of {len(report)} prompts of {report.name!r} are among those of {fit.name!r}: "
            f"{', '.join(shared[:_SHOWN])}{more}",
            remedy="report on a set that took no part in fitting, or take these prompts out of one of the two",
        )
    if harmful and other in fit.overlaps and family in report.overlaps:
        raise DataError(
            f"{fit.name!r} and {report.name!r} hold some of the same prompts, translated or reworded",
            remedy="fit on one family of sets and report on another",
        )


def _overlaps(found: Benchmark[Prompt], parts: Mapping[str, str]) -> frozenset[str]:
    """Other sets that hold prompts of these parts of a set, by what either of the two says."""
    mine = {name for name, part in found.overlaps.items() if not part or part in parts.values()}
    theirs = {other.name for other in _SETS.own.values() if found.name in other.overlaps}
    return frozenset(mine | theirs)


def _family(prompts: PromptSet) -> str:
    """What the names of rows belong to: a benchmark with all its parts, rewritten or not, or one file."""
    return prompts.origin if prompts.origin.lower().endswith(SUFFIXES) else re.split(r"[.+]", prompts.name)[0]


def duplicate_clusters(prompts: PromptSet, spoken: str) -> Mapping[str, str]:
    """Parallel name -> name of the first prompt with the same text, in one language; for clustered statistics."""
    first: dict[str, str] = {}
    return {
        prompt.parallel: first.setdefault(normalised(prompt.text), prompt.parallel)
        for prompt in prompts.prompts
        if prompt.language == spoken
    }
