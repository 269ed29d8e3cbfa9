"""The `reproduce/` folder: its files, and the record that ties them together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from polysafe._version import __version__
from polysafe.checkpoint.header import load_json
from polysafe.errors import CheckpointError, DataError
from polysafe.recipe.recipe import Recipe, load_recipe
from polysafe.reproduce.environment import Environment
from polysafe.reproduce.inputs import Input, InputName
from polysafe.stats.rows import Row, load_rows

Model = TypeVar("Model", bound=BaseModel)

SCHEMA = 1
FOLDER = "reproduce"
RECORD = "reproduce.json"
ENVIRONMENT = "environment.json"
REQUIREMENTS = "requirements.txt"
PROMPTS = "prompts.jsonl"
RESULTS = "results.json"
SUMS = "SHA256SUMS"

_NAME = r"\w[\w.+-]*"  # of one file in one folder: a record from elsewhere leads nowhere else
RecipeFile = Annotated[str, StringConstraints(pattern=rf"^(recipes/)?{_NAME}\.yaml$")]
EditFolder = Annotated[str, StringConstraints(pattern=rf"^(edits/)?{_NAME}$")]
RecordsFile = Annotated[str, StringConstraints(pattern=rf"^records/{_NAME}\.jsonl$")]
Kind = Literal["evaluate", "quickstart"]
"""Which program makes the results: that of `polysafe evaluate`, or the quickstart's."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Step(_Value):
    """One recipe with what came of it.

    Attributes:
        name: What it is called.
        recipe: File of the recipe.
        edit: Folder of the edit.
        edit_sha256: Hash of the edit.
        output: SHA-256 of every file of the model, without polysafe's own records.
    """

    name: str
    recipe: RecipeFile
    edit: EditFolder
    edit_sha256: str
    output: dict[str, str]


class Judged(_Value):
    """One model, asked and judged.

    Attributes:
        name: What it is called.
        file: Verdicts, and hashes of the answers, one line per prompt.
        records: SHA-256 of the file with all answers, which is not part of this folder.
        generator: What decided the answers besides prompts: weights, tokenizer, template, sampling, versions.
    """

    name: str
    file: RecordsFile
    records: str
    generator: dict[str, Any] = {}


class Reproduction(_Value):
    """Everything that has to be known to make a result again.

    Attributes:
        polysafe: What this is.
        schema_version: Version of this form.
        version: The polysafe that wrote it.
        kind: Which program makes the results.
        settings: What that program was told beside the recipe.
        judge: Name and identity of the judge, without addresses.
        inputs: What it was made from, by name.
        steps: Recipes, edits and models.
        sets: Prompt sets: names, hashes, counts, licences.
        abilities: Task -> how an ability was measured: questions, requests, shots, scoring, with their hashes.
        runs: Models that were asked.
    """

    polysafe: Literal["reproduction"] = "reproduction"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    version: str = __version__
    kind: Kind
    settings: dict[str, Any]
    judge: dict[str, Any]
    inputs: dict[InputName, Input]
    steps: tuple[Step, ...]
    sets: tuple[dict[str, Any], ...] = ()
    abilities: dict[str, dict[str, Any]] = {}
    runs: tuple[Judged, ...]


@dataclass(frozen=True)
class ReproduceFolder:
    """A `reproduce/` folder.

    Attributes:
        root: The folder.
        about: Its record.
        environment: What the results were computed with.
    """

    root: Path
    about: Reproduction
    environment: Environment

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads a folder of results, or the `reproduce/` folder in it.

        Raises:
            DataError: There is no record, it is damaged, or another version of polysafe wrote it in another form.
        """
        root = folder if (folder / RECORD).is_file() else folder / FOLDER
        if not (root / RECORD).is_file():
            raise DataError(
                f"holds no {RECORD}", where=folder, remedy="name a folder of results, or the reproduce/ folder in it"
            )
        content = _read(root / RECORD)
        _check_schema(content, root)
        return cls(root, _parse(Reproduction, content, root / RECORD), _environment(root / ENVIRONMENT))

    def recipe(self, step: Step) -> Recipe:
        """The recipe of a step, with its placeholders as paths in this folder."""
        return load_recipe(self.root / step.recipe)

    @cached_property
    def rows(self) -> list[Row]:
        """The results."""
        return load_rows(self.root / RESULTS)

    def verdicts(self, run: Judged) -> dict[str, tuple[str, str]]:
        """Prompt -> verdict, and hash of the answer.

        Raises:
            DataError: The file is not such a list.
        """
        path = self.root / run.file
        try:
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            return {str(row["id"]): (str(row["verdict"]), str(row["answer"])) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"is no list of verdicts: {error!r}", where=path) from error


def _environment(path: Path) -> Environment:
    content = _read(path)
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
        raise DataError("is no description of an environment that this polysafe reads", where=path)
    return _parse(Environment, content, path)


def _read(path: Path) -> Any:
    try:
        return load_json(path, path.read_bytes(), "the record")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    except CheckpointError as error:
        raise DataError(error.problem, where=path) from error


def _check_schema(content: object, root: Path) -> None:
    about: Mapping[str, Any] = content if isinstance(content, dict) else {}
    if about.get("polysafe") != "reproduction":
        raise DataError("is no record of a result", where=root / RECORD)
    if about.get("schema") != SCHEMA:
        version = re.sub(r"[^\w.+-]", "", str(about.get("version")))
        raise DataError(
            f"has schema {about.get('schema')!r}, this polysafe ({__version__}) reads schema {SCHEMA}",
            where=root / RECORD,
            remedy=f"pip install 'polysafe=={version}' and run `polysafe reproduce {root}` with it",
        )


def _parse(model: type[Model], content: object, path: Path) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"is not what polysafe wrote: {place}: {first['msg']}", where=path) from error
