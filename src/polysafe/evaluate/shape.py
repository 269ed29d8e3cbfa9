"""The shape of `run.json`: what every reader of a run relies on, checked once when it is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(max_length=1000)]


class _Part(BaseModel):
    """Entries that it does not name may be there too, and are anything."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class AboutSet(_Part):
    """What a run says of a prompt set."""

    name: Name
    kind: Literal["harmful", "harmless"]
    sha256: str
    prompts: Count
    languages: list[str]
    licence: str | None
    overlaps: list[str]
    dropped: dict[str, Count]


class AboutGenerator(_Part):
    """What a run says of the model that answered."""

    sampling: dict[str, Any]
    weights: str | None = None


class AboutJudge(_Part):
    """What a run says of its judge."""

    name: Name
    identity: dict[str, Any]


class AboutAttack(_Part):
    """What a run says of the attack that rewrote its prompts."""

    name: Name
    version: int
    title: str
    source: str
    left_out: list[str] = []


class AboutRecords(_Part):
    """What a run says of the file of its records."""

    sha256: str


class AboutRun(_Part):
    """The content of `run.json`."""

    model: Name
    generator: AboutGenerator
    judge: AboutJudge
    sets: list[AboutSet]
    records: AboutRecords
    prompts_sha256: str
    prompt_tokens_sha256: str | None = None
    judge_notes: list[str] = []
    labels: dict[str, dict[str, Count]] = {}
    versions: dict[str, str] = {}
    attack: AboutAttack | None = None
    imported: list[dict[str, Any]] = []
