"""What was given to raters, and what they must not see: which model gave which answer, and what a judge said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from polysafe.files.json_file import Format
from polysafe.judge.verdict import Label

FILE = "key.json"
FORMAT = Format(
    "key of annotation sheets",
    "annotation_key",
    absent="there are no annotation sheets here",
    find=f"name a folder that `polysafe annotate export` wrote; it holds {FILE}",
    again="export the sheets again, with the same seed",
    largest=256 << 20,
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Asked(_Part):
    """A run whose answers are labelled.

    Attributes:
        model: What its model is called.
        records_sha256: Hash of its records.
        judge: Name of its judge.
        identity: Identity of its judge.
    """

    model: str
    records_sha256: str
    judge: str
    identity: dict[str, Any]


class Given(_Part):
    """A model's answer among those of an item.

    Attributes:
        run: Number of the run, from 0.
        label: What its judge said.
    """

    run: int
    label: str


class Item(_Part):
    """An answer that raters see once, however many models gave it.

    Attributes:
        id: Its name on the sheets; says nothing of the model.
        language: Language of the prompt.
        cluster: Name of the prompt, the same in every language.
        prompt: The prompt.
        answer: The answer.
        given: The models that gave it.
    """

    id: str
    language: str
    cluster: str
    prompt: str
    answer: str
    given: tuple[Given, ...]


class Key(_Part):
    """Everything that was exported, and from where.

    Attributes:
        seed: Of the draw and of the orders.
        raters: Names of the raters.
        runs: The runs.
        items: What is labelled, by language.
    """

    seed: int
    raters: tuple[str, ...]
    runs: tuple[Asked, ...]
    items: tuple[Item, ...]

    @property
    def sha256(self) -> str:
        """Hash over all of it, by which the file and the forms are checked."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the items."""
        return tuple(dict.fromkeys(item.language for item in self.items))

    def of_language(self, language: str) -> tuple[Item, ...]:
        """The items of one language."""
        return tuple(item for item in self.items if item.language == language)

    def verdicts(self) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Label]]]:
        """Name and identity of every judge, and item -> what it said."""
        for number, run in enumerate(self.runs):
            if any(run.identity == other.identity for other in self.runs[:number]):
                continue
            same = {place for place, other in enumerate(self.runs) if other.identity == run.identity}
            said = {item.id: Label(given.label) for item in self.items for given in item.given if given.run in same}
            if Label.UNJUDGED not in said.values():
                yield run.judge, run.identity, said

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {**FORMAT.head, **self.model_dump(mode="json"), "sha256": self.sha256}

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the key of exported sheets.

        Raises:
            DataError: There is none, it is of another schema, or it was changed.
        """
        path = folder / FILE
        content = FORMAT.read(path)
        written = content.pop("sha256", None)
        found = FORMAT.built(lambda told: cls.model_validate_json(json.dumps(told)), content, path)
        if found.sha256 != written:
            FORMAT.refuse("differs from what was written (SHA-256)", path)
        return found
