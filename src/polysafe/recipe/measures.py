"""The blocks of a recipe that say by which prompts something is measured: `validation` and `evaluate`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_serializer,
    model_serializer,
    model_validator,
)

from polysafe.data.attacks.names import AttackName
from polysafe.data.sets.names import SetName
from polysafe.files.paths import AbsolutePath
from polysafe.files.recipe_errors import problem
from polysafe.files.strict import Strict
from polysafe.judge.block import JudgeBlock, JudgeSpec

Items = TypeVar("Items", bound=Collection[object])
Item = TypeVar("Item")


def _not_empty(value: Items) -> Items:
    if not value:
        raise problem("at least one is needed")
    return value


def distinct(value: tuple[Item, ...]) -> tuple[Item, ...]:
    """Refuses a list in which something stands twice; to be used as a validator."""
    for index, name in enumerate(value):
        if name in value[:index]:
            raise problem(f"{str(name)!r} is named twice", at=(index,))
    return value


Name = Annotated[str, StringConstraints(pattern=r"^[\w][\w.-]{0,63}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,8}([-_][A-Za-z0-9]{1,8})*$")]
Names = Annotated[tuple[Name, ...], AfterValidator(distinct)]

# Not a constraint of the container: that would complain once more when the only entry is wrong.
NotEmpty = (AfterValidator(_not_empty), Field(json_schema_extra={"minItems": 1}))


Sets = Annotated[tuple[SetName, ...], AfterValidator(distinct)]
Gain = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=-1, le=0)]


class Block(Strict):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Judged(Block):
    @field_serializer("judge", check_fields=False)
    def _serialise_judge(self, judge: JudgeSpec | None) -> JsonValue:
        return None if judge is None else judge.model_dump(mode="json", exclude_none=True)


class Constraints(Block):
    """What a candidate may lose in any language, in shares of prompts, against the unedited model."""

    over_refusal: Gain = 0.02
    """Most that refusals of harmless prompts may rise."""

    refused: Loss = -0.02
    """Most that refusals of harmful prompts may fall."""

    helpful: Loss = -0.02
    """Most that helpful answers to harmless prompts may fall; measured by a judge alone."""

    kl: Annotated[float, Field(ge=0)] | None = None
    """Most that the next tokens of harmless answers may diverge, in nats per token; no limit where it is left out."""

    answers: Annotated[float, Field(le=0)] | None = None
    """Most that the log-probability of harmless answers may fall, in nats per token; no limit where it is left out."""

    @property
    def limits(self) -> dict[str, float]:
        """Metric -> limit, of those that have one."""
        stated: dict[str, float] = self.model_dump(exclude_none=True)
        return stated

    @model_serializer(mode="wrap")
    def _stated(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        return {key: value for key, value in written.items() if value is not None}


class Validate(_Judged):
    """What methods choose by. No prompt of it may be an anchor, or be reported on."""

    languages: Annotated[tuple[Language, ...], AfterValidator(distinct)] = ()
    """Language codes; by default those of the edits and their pivot."""

    safety: Annotated[Sets, *NotEmpty]
    """Sets or tables of harmful prompts."""

    over_refusal: Annotated[Sets, *NotEmpty]
    """Sets or tables of harmless prompts."""

    signal: Literal["refusal"] | None = None
    """Refusal log-odds, which need no judge; what is measured where no judge is named."""

    judge: JudgeBlock | None = None
    """Who judges answers instead."""

    limit: Annotated[int, Field(ge=1)] | None = 50
    """Parallel rows of every set; null for all."""

    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most new tokens of an answer that is judged; 256, and 8 for the toy family."""

    candidates: Annotated[int, Field(ge=1)] | None = 4
    """Most layers that `layers: [auto]` tries, those that anchors speak for; null for all."""

    constraints: Constraints = Constraints()
    """What a candidate may lose."""

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if self.signal is not None and self.judge is not None:
            raise problem("candidates are compared by a `signal` or by a `judge`", "remove one", at=("signal",))
        return self


Objective = Literal["refused", "over_refusal", "helpful", "kl", "answers", "size"]


class Search(Block):
    """How fields of the edits that have several values are searched (`polysafe search`)."""

    trials: Annotated[int, Field(ge=1)] = 100
    """Most points that are tried."""

    minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes after which no further point is tried; no limit where it is left out."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the sampler."""

    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    """Optuna's sampler. A space of no more points than `trials` is tried whole."""

    objectives: Annotated[tuple[Objective, ...], *NotEmpty, AfterValidator(distinct)] = ("refused", "kl")
    """What is made better: refusals first; then what they cost. Constraints are those of `validation`."""

    by: Literal["signal", "judge"] | None = None
    """What every point is read by. By default refusal log-odds, where openings of refusals are known in all edited
    languages, and the judge decides among the best; otherwise the judge reads every point."""

    judged: Annotated[int, Field(ge=1)] = 8
    """Points of the front that a judge is asked about, where points are read by the signal."""


class Evaluate(_Judged):
    """What is measured before and after."""

    languages: Annotated[tuple[Language, ...], *NotEmpty, AfterValidator(distinct)]
    """Language codes."""

    safety: Sets = ()
    """Sets or tables of harmful prompts."""

    over_refusal: Sets = ()
    """Sets or tables of harmless prompts that look harmful."""

    capability: Names = ()
    """Tasks that measure ability."""

    attacks: Annotated[tuple[AttackName, ...], AfterValidator(distinct)] = ()
    """Attacks that rewrite the prompts of these sets, or templates of your own; a table of their own."""

    template: Literal["chat", "raw"] = "chat"
    """`raw` for base models, which go on from the prompt as it stands."""

    judge: JudgeBlock | None = None
    """Who gives the verdicts. Without one, refusals, broken answers and refusal log-odds are measured."""

    calibration: AbsolutePath | None = None
    """Measured error of this judge (`polysafe judge calibrate`), by which unsafe rates are also corrected."""
