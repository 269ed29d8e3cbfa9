"""The `reproduce/` folder: its files, and the record that ties them together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, StringConstraints

from polysafe._version import __version__
from polysafe.errors import DataError
from polysafe.files.json_file import Format, parse_line
from polysafe.recipe.recipe import Recipe, load_recipe
from polysafe.reproduce.environment import Environment
from polysafe.reproduce.inputs import Input, InputName
from polysafe.stats.rows import Row, load_rows

FOLDER = "reproduce"
RECORD = "reproduce.json"
ENVIRONMENT = "environment.json"
REQUIREMENTS = "requirements.txt"
PROMPTS = "prompts.jsonl"
RESULTS = "results.json"
SUMS = "SHA256SUMS"
FORMAT = Format(
    "record of a result",
    "reproduction",
    again="pip install 'polysafe=={version}' and run `polysafe reproduce {folder}` with it",
)
ENVIRONMENT_FORMAT = Format("description of an environment")

_NAME = r"\w[\w.+-]*"  # of one file in one folder: a record from elsewhere leads nowhere else
RecipeFile = Annotated[str, StringConstraints(pattern=rf"^(recipes/)?{_NAME}\.yaml$")]
EditFolder = Annotated[str, StringConstraints(pattern=rf"^(edits/)?{_NAME}$")]
RecordsFile = Annotated[str, StringConstraints(pattern=rf"^records/{_NAME}\.jsonl$")]
Kind = Literal["evaluate", "quickstart"]
"""Which program makes the results: that of `polysafe evaluate`, or the quickstart's."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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
        about = FORMAT.built(Reproduction.model_validate, FORMAT.read(root / RECORD), root / RECORD)
        told = ENVIRONMENT_FORMAT.read(root / ENVIRONMENT)
        return cls(root, about, ENVIRONMENT_FORMAT.built(Environment.model_validate, told, root / ENVIRONMENT))

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
            rows = [parse_line(line) for line in path.read_bytes().splitlines()]
            return {str(row["id"]): (str(row["verdict"]), str(row["answer"])) for row in rows}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"is no list of verdicts: {error!r}", where=path) from error
