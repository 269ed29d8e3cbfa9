"""What a model card is made of: plain values, kept beside it so that it can be built again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from polysafe.checkpoint.hub import HubId
from polysafe.checkpoint.licence import Licence
from polysafe.checkpoint.output import RECORDS
from polysafe.files.json_file import Format
from polysafe.findings.data import JudgeError
from polysafe.stats.rows import Row

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = Format("data of a model card", key="polysafe_card", half_characters=True)
CARD = "README.md"
CARD_DATA = f"{RECORDS}/card.json"


@dataclass(frozen=True)
class CardSource:
    """A model that the output was made from.

    Attributes:
        name: What the recipe calls it.
        origin: Name of its folder, or its hub id and commit.
        hubs: The models on the hub that its files come from; several for an adapter on its base.
        files: SHA-256 of every weight file.
        licences: What each of its folders says about its licence.
        imported: What has to be said of its weights where they came from a file of another format.
    """

    name: str
    origin: str
    hubs: tuple[HubId, ...]
    files: Mapping[str, str]
    licences: tuple[Licence, ...]
    imported: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardMethod:
    """A method that contributed to the edit.

    Attributes:
        method: Its versioned name.
        label: Its name in results.
        options: Every option, without places of the machine that it ran on.
        notes: Its findings.
        warnings: Its warnings.
    """

    method: str
    label: str
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CardSet:
    """A set of prompts that the model was asked.

    Attributes:
        name: Its name.
        kind: harmful or harmless.
        prompts: Number of prompts over all languages.
        sha256: Hash of its content.
    """

    name: str
    kind: str
    prompts: int
    sha256: str


@dataclass(frozen=True)
class CardResults:
    """What was measured.

    Attributes:
        rows: Every metric in every language, before and after.
        sets: The sets of prompts.
        judge: Name of the judge.
        judge_errors: Its measured error by language; empty where nobody measured it.
        sampling: How answers were drawn.
        versions: Versions of what can change an answer.
        notes: What a reader should know.
    """

    rows: tuple[Row, ...]
    sets: tuple[CardSet, ...]
    judge: str
    judge_errors: tuple[JudgeError, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """Everything that a model card says.

    Attributes:
        polysafe: Version that made the model.
        edit: SHA-256 of the edit.
        start: Source that the edit starts from; it gives the config too.
        tokenizer_from: Source of tokenizer, chat template and generation config.
        sources: What the model was made from.
        methods: What changed it.
        operations: Number of tensors by what happened to them.
        merged: Whether tensors of more than one model are in the result.
        recipe: The recipe without places; None where an edit was applied without one.
        asked: What the recipe wants measured: languages and names by kind.
        toy: Whether a source is of the toy family, whose numbers are no evidence about any real model.
        licence: The licence that the publisher chose; None where nobody chose.
        licence_name: For the licence `other`, what it is called.
        name: What the model is called where it is published.
        results: What was measured; None where nothing was.
    """

    polysafe: str
    edit: str
    start: str
    tokenizer_from: str
    sources: tuple[CardSource, ...]
    methods: tuple[CardMethod, ...]
    operations: Mapping[str, int]
    merged: bool
    recipe: str | None = None
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    toy: bool = False
    licence: str | None = None
    licence_name: str | None = None
    name: str | None = None
    results: CardResults | None = None

    @property
    def label(self) -> str:
        """Name of its methods in results."""
        return "+".join(method.label for method in self.methods)

    @property
    def stated_licences(self) -> dict[str, tuple[Licence, ...]]:
        """Source -> what its folders say about their licence."""
        return {source.name: source.licences or (Licence(None),) for source in self.sources}

    @property
    def settled_licence(self) -> str | None:
        """The chosen licence, else the one that all sources name; None where they differ or one names none."""
        named = {licence.id for licences in self.stated_licences.values() for licence in licences}
        return self.licence or (named.pop() if len(named) == 1 else None)

    @property
    def licence_question(self) -> str | None:
        """Why somebody has to choose the licence; None where it is settled."""
        if self.settled_licence is not None:
            return None
        stated = [
            f"{name}: {', '.join(licence.said or 'unknown' for licence in licences)}"
            for name, licences in self.stated_licences.items()
        ]
        return f"the licence of the result is not settled ({'; '.join(stated)})"

    def to_json(self) -> bytes:
        """The content of `card.json`, byte for byte the same for the same card."""
        # ASCII: what others wrote may hold lone surrogates, which have no UTF-8 form.
        body = {**FORMAT.head, **_adapter().dump_python(self)}
        if self.licence_name is None:
            del body["licence_name"]
        for source in body["sources"]:
            if not source["imported"]:  # as cards were before weights could be imported
                del source["imported"]
        return (json.dumps(body, indent=1, allow_nan=False) + "\n").encode("ascii")

    @classmethod
    def from_json(cls, data: bytes, where: object) -> Card:
        """Reads what `to_json` wrote.

        Raises:
            DataError: The content is not that of a card of this version.
        """
        return FORMAT.built(_adapter().validate_python, FORMAT.parse(data, where), where)


@cache
def _adapter() -> TypeAdapter[Card]:
    from pydantic import TypeAdapter

    return TypeAdapter(Card)
