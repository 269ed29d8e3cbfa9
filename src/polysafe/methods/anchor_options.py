"""Where the anchors of a method come from, as a recipe says it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from polysafe.checkpoint.opened import Source
from polysafe.data.anchor_sets import ID_COLUMN, AnchorRows, harmless_part, load_anchors, load_texts
from polysafe.data.anchors import Anchors
from polysafe.data.organism import organism_of
from polysafe.data.prompts import Kind, PromptSet
from polysafe.data.sets.names import SetName
from polysafe.files.paths import AbsolutePath
from polysafe.files.strict import Strict


class AnchorSet(Strict):
    """Prompts of a set or of a table. Alone under `anchors`, a set that has harmful and harmless prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    set: SetName
    """The set with its parts, for example `polyrefuse.train`, or a table of your own."""
    languages: tuple[str, ...] | None = None
    """Languages that every row must have; those of the edit by default."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Most rows."""

    def rows(self, kind: Kind, languages: Sequence[str], data: Path | None) -> AnchorRows:
        """Its rows of one kind, in some languages."""
        return load_anchors(self.set, kind, languages, complete_in=self.languages or (), limit=self.limit, data=data)

    def both(self, languages: Sequence[str], data: Path | None) -> tuple[AnchorRows, AnchorRows]:
        """Its harmful and its harmless rows."""
        harmless = self.model_copy(update={"set": harmless_part(self.set)})
        return self.rows("harmful", languages, data), harmless.rows("harmless", languages, data)


class AnchorFiles(Strict):
    """Harmful and harmless prompts, each in a table (CSV, TSV, JSON, JSON Lines, Parquet) or of a set."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    harmful: AbsolutePath | AnchorSet
    """Harmful prompts; a hundred or more per language work well."""
    harmless: AbsolutePath | AnchorSet
    """Harmless prompts, several times as many."""
    id_column: str = ID_COLUMN
    """Column of a table that names the rows; without it they are numbered."""

    def both(self, languages: Sequence[str], data: Path | None) -> tuple[AnchorRows, AnchorRows]:
        """Harmful and harmless rows in some languages.

        Raises:
            DataError: A table or set cannot be read, or lacks a language.
        """
        return self._rows(self.harmful, "harmful", languages, data), self._rows(
            self.harmless, "harmless", languages, data
        )

    def _rows(self, source: Path | AnchorSet, kind: Kind, languages: Sequence[str], data: Path | None) -> AnchorRows:
        if isinstance(source, AnchorSet):
            return source.rows(kind, languages, data)
        return load_anchors(source, kind, languages, id_column=self.id_column, data=data)


AnchorSource = AnchorFiles | AnchorSet | Literal["organism"]
"""Where anchors come from; `organism` is the training split of the toy family that the model is of."""


def read_anchors(named: AnchorSource, source: Source, languages: Sequence[str], data: Path | None) -> Anchors:
    """The anchors of an edit of one model.

    Raises:
        DataError: A table or set cannot be read, lacks a language, or the model is of no organism.
    """
    if named == "organism":
        return organism_of(source.checkpoint).anchors(languages)
    return Anchors(*(rows.parallel for rows in named.both(languages, data)))


def anchor_prompts(named: AnchorSource, languages: Sequence[str], data: Path | None) -> Iterator[PromptSet]:
    """The anchors as sets, to be compared with sets that are reported on.

    Those of the toy family are of another split than its evaluation.

    Raises:
        DataError: A table or set cannot be read, or lacks a language.
    """
    if named != "organism":
        yield from (rows.prompts for rows in named.both(languages, data))


def shared_with(anchors: Anchors, evaluation: Sequence[Path], *, allowed: bool) -> tuple[str, ...]:
    """What anchors share with files of prompts of an evaluation, if that is allowed.

    Raises:
        DataError: It is not, and they share something.
    """
    return anchors.require_disjoint({path.name: load_texts(path) for path in evaluation}, forced=allowed)
