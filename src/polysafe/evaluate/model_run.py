"""A finished run of one model, as it is on disk and in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from polysafe.checkpoint.digest import hash_file
from polysafe.checkpoint.imported import Imported, records_of
from polysafe.checkpoint.output import Workspace
from polysafe.errors import DataError
from polysafe.evaluate import metrics
from polysafe.evaluate.ability import Ability, load_abilities
from polysafe.evaluate.correction import corrected_rates, load_calibration
from polysafe.evaluate.numbers import Numbers, load_numbers
from polysafe.evaluate.people import People, load_people
from polysafe.evaluate.records import Record, load_records
from polysafe.evaluate.unread import Unread, rates
from polysafe.files.json_file import Format
from polysafe.judge.calibrate import Calibration
from polysafe.judge.nobody import NOBODY
from polysafe.stats.compare import Outcomes
from polysafe.stats.judge_error import Corrected
from polysafe.stats.rows import RateRow

RUN = "run.json"
FORMAT = Format(
    "run of one model",
    "model_run",
    absent="there is no run of an evaluation here",
    find="name the folder of one model's run, which holds run.json",
    again="read it with the polysafe that is named under versions in it, or evaluate again",
)
RECORDS = "records.jsonl"
IMPORTED = "imported"
"""Entry of `run.json` that says of which files of another format the weights were made; most runs have none."""
ATTACK = "attack"
"""Entry of `run.json` that says which attack rewrote its prompts; runs of published prompts have none."""
ATTACKS = "attacks"
"""Folder in that of a run, with a run of the same model for every attack."""

_Count = Annotated[int, Field(ge=0)]
_Name = Annotated[str, Field(max_length=1000)]


class _Part(BaseModel):
    """A part of `run.json`, whose shape every reader relies on. Entries that it does not name are anything."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class AboutSet(_Part):
    """What a run says of a prompt set."""

    name: _Name
    kind: Literal["harmful", "harmless"]
    sha256: str
    prompts: _Count
    languages: list[str]
    licence: str | None
    overlaps: list[str]
    dropped: dict[str, _Count]


class AboutGenerator(_Part):
    """What a run says of the model that answered."""

    sampling: dict[str, Any]
    weights: str | None = None


class AboutJudge(_Part):
    """What a run says of its judge."""

    name: _Name
    identity: dict[str, Any]


class AboutAttack(_Part):
    """What a run says of the attack that rewrote its prompts."""

    name: _Name
    version: int
    title: str
    source: str
    left_out: list[str] = []


class AboutRecords(_Part):
    """What a run says of the file of its records."""

    sha256: str


class AboutRun(_Part):
    """The content of `run.json`."""

    model: _Name
    generator: AboutGenerator
    judge: AboutJudge
    sets: list[AboutSet]
    records: AboutRecords
    prompts_sha256: str
    prompt_tokens_sha256: str | None = None
    judge_notes: list[str] = []
    labels: dict[str, dict[str, _Count]] = {}
    versions: dict[str, str] = {}
    attack: AboutAttack | None = None
    imported: list[dict[str, Any]] = []


@dataclass(frozen=True)
class ModelRun:
    """Everything that one model was asked, answered, and was told about it.

    Attributes:
        folder: Where it is on disk.
        about: The content of `run.json`: identities, hashes, counts, versions.
        records: One record per prompt, in the order of the sets.
        abilities: What it can do, by task; empty where that was not measured.
        calibration: The judge's measured error, None where it was not given.
        numbers: What was measured in numbers, such as refusal log-odds; empty where nothing was.
    """

    folder: Path
    about: Mapping[str, Any]
    records: tuple[Record, ...]
    abilities: tuple[Ability, ...] = ()
    calibration: Calibration | None = None
    numbers: tuple[Numbers, ...] = ()

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Reads a run from its folder and checks that the records are those that were written.

        Raises:
            DataError: There is no run, it is of another schema, it was changed since, or the calibration in it is of
                another judge.
        """
        root = Path(folder)
        about = _read_about(root / RUN)
        _check_hash(root / RECORDS, about["records"]["sha256"])
        return cls(root, about, load_records(root / RECORDS)).measured_since()

    def measured_since(self) -> Self:
        """The same answers, with what stands beside them in the folder now: abilities, calibration, numbers.

        Records are most of a run, so they are not read a second time.

        Raises:
            DataError: One of them is damaged, or the calibration is of another judge.
        """
        return replace(
            self,
            abilities=load_abilities(self.folder),
            calibration=load_calibration(self.folder, self.about["judge"]),
            numbers=load_numbers(self.folder),
        )

    @property
    def name(self) -> str:
        """What the model is called in results."""
        return str(self.about["model"])

    @property
    def judge(self) -> str:
        """Name of the judge."""
        return str(self.about["judge"]["name"])

    @property
    def judged(self) -> bool:
        """Whether a judge looked at the answers; otherwise nothing is known of which are unsafe."""
        return self.judge != NOBODY

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How answers were drawn."""
        return dict(self.about["generator"]["sampling"])

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages that were asked in, in the order of the sets."""
        return tuple(dict.fromkeys(record.prompt.language for record in self.records))

    @cached_property
    def imported(self) -> tuple[Imported, ...]:
        """The files of other formats that the model's weights were made of; empty where the run names none.

        Raises:
            DataError: The run was changed.
        """
        from pydantic import ValidationError

        try:
            return records_of(self.about.get(IMPORTED, ()))
        except ValidationError as error:
            raise DataError(f"says of its weights what polysafe did not write: {error}", where=self.folder) from error

    @property
    def attack(self) -> str:
        """Name of the attack that rewrote its prompts; empty where they were asked as published."""
        return str(self.about.get(ATTACK, {}).get("name", ""))

    @cached_property
    def attacks(self) -> Mapping[str, ModelRun]:
        """Attack -> the run of the same model on the same prompts, rewritten by it.

        Raises:
            DataError: One of these runs was changed, or is another model's.
        """
        folders = sorted((self.folder / ATTACKS).glob(f"*/{RUN}")) if (self.folder / ATTACKS).is_dir() else []
        found = {run.attack: run for run in map(ModelRun.load, (path.parent for path in folders))}
        for name, run in found.items():
            if run.folder.name != name or run.about["generator"] != self.about["generator"]:
                raise DataError("is no attack on the model of the run above it", where=run.folder)
        return found

    @cached_property
    def outcomes(self) -> Outcomes:
        """(language, metric) -> item -> whether it holds, abilities among them."""
        return self._merged(refusals=None)

    def outcomes_where(self, *, refusals: bool) -> Outcomes:
        """As `outcomes`, with the refusals counted or not (see `metrics.outcomes`)."""
        if refusals == metrics.tells_refusals(self.records):
            return self.outcomes
        return self._merged(refusals=refusals)

    def _merged(self, *, refusals: bool | None) -> Outcomes:
        judged = metrics.outcomes(self.records, refusals=refusals)
        return metrics.merge([judged, *(ability.outcomes for ability in self.abilities)])

    @cached_property
    def categories(self) -> dict[str, Outcomes]:
        """Category -> outcomes of its prompts."""
        return metrics.outcomes_by_category(self.records)

    @cached_property
    def clusters(self) -> dict[tuple[str, str], str]:
        """(language, item) -> the group of prompts with one text that it belongs to."""
        return metrics.clusters(self.records)

    @property
    def repeated(self) -> dict[str, str]:
        """Item -> the first item with the same text in some language, for items that are not the first themselves."""
        return {item: first for (_, item), first in self.clusters.items() if item != first}

    @cached_property
    def people(self) -> People | None:
        """How far people agree who labelled answers of it, None where nobody did.

        Raises:
            DataError: The file in its folder was changed.
        """
        return load_people(self.folder)

    @property
    def corrected(self) -> dict[str, Corrected]:
        """Language -> its unsafe rate, corrected for the judge's error; empty without a calibration."""
        return corrected_rates(self.records, self.calibration)[0]

    @property
    def uncorrected(self) -> tuple[str, ...]:
        """Why languages are missing among the corrected rates although there is a calibration."""
        return corrected_rates(self.records, self.calibration)[1]

    def rates(self) -> list[RateRow]:
        """The rate of every metric in every language, with its interval; None where too few answers have a verdict."""
        return rates(self.name, self.outcomes)

    @cached_property
    def unread(self) -> Unread:
        """The answers that the judge gave no verdict on."""
        return Unread.of(self.judge, self.records, self.outcomes)

    def truncation(self) -> list[RateRow]:
        """Share of answers that the token budget ended, per language."""
        return metrics.truncation(self.name, self.records)


def _read_about(path: Path) -> dict[str, Any]:
    if not path.exists() and Workspace(path.parent).begun:
        raise DataError(
            "is not finished",
            where=path.parent,
            remedy="give the command that writes it again: it goes on where it stopped",
        )
    about = FORMAT.read(path)
    missing = [key for key in ("model", "generator", "judge", "sets", "records", "prompts_sha256") if key not in about]
    if missing:
        FORMAT.refuse(f"lacks {', '.join(missing)}", path)
    FORMAT.built(AboutRun.model_validate, about, path)
    return about


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DataError("is missing", where=path, remedy="evaluate again into another folder; the cache makes it short")
    if hash_file(path) != expected:
        raise DataError(
            "differs from what was written (SHA-256)",
            where=path,
            remedy="evaluate again into another folder; the cache makes it short",
        )
