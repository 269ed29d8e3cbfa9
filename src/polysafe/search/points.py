"""A point of a space, and what the edited model does there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from statistics import fmean
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from polysafe.errors import DataError, PolysafeError
from polysafe.methods.constraints import ANSWERS, HELPFUL, KL, OVER_REFUSAL, REFUSED, Reading, Rows
from polysafe.recipe.measures import Objective

SIZE = "size"

_Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
_Reads = tuple[str, str, dict[str, StrictBool | _Number]]


class _Gain(TypedDict):
    """What is used of a gain; what else a change says is kept."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    language: str
    difference: _Number


class _Loss(_Gain):
    """The same of a loss."""

    metric: str
    limit: _Number
    within: StrictBool


class _Seconds(TypedDict):
    deciding: _Number
    reading: _Number


class _Shape(TypedDict):
    """An outcome as JSON."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    feasible: StrictBool
    score: _Number
    p_value: Annotated[_Number, Field(ge=0, le=1)]
    gains: Annotated[list[_Gain], Field(min_length=1)]
    losses: list[_Loss]
    costs: dict[str, _Number]
    reading: list[_Reads]
    seconds: _Seconds
    edit: str


@cache
def _shape() -> TypeAdapter[_Shape]:
    return TypeAdapter(Annotated[_Shape, AfterValidator(_read_of_all)])


def _read_of_all(shape: _Shape) -> _Shape:
    cells = {(language, metric) for language, metric, _ in shape["reading"]}
    if missing := [gain["language"] for gain in shape["gains"] if (gain["language"], REFUSED) not in cells]:
        raise ValueError(f"nothing was read of refusals in {missing[0]!r:.40}")
    return shape


@dataclass(frozen=True)
class Outcome:
    """What an edited model does on validation prompts.

    Attributes:
        feasible: Whether every loss stays within its constraint.
        score: Mean plus lowest gain over the edited languages: log-odds, or shares of prompts.
        p_value: Two-sided test of no mean gain, paired by prompt.
        gains: What became of refusals in each edited language (`constraints.Change`).
        losses: What is held by constraints, with its limit.
        costs: Metric -> mean loss over languages, in its unit; `size` is the share of weights that may change.
        reading: What was read, prompt by prompt.
        seconds: Wall time, for deciding and for reading.
        edit: Hash of the edit.
    """

    feasible: bool
    score: float
    p_value: float
    gains: Sequence[Mapping[str, Any]]
    losses: Sequence[Mapping[str, Any]]
    costs: Mapping[str, float]
    reading: Rows = field(repr=False)
    seconds: Mapping[str, float]
    edit: str

    @property
    def mean_gain(self) -> float:
        """Mean gain over the edited languages."""
        return fmean(gain["difference"] for gain in self.gains)

    def value(self, objective: Objective) -> float | None:
        """What an objective makes smaller, None where it was not measured."""
        return -self.score if objective == REFUSED else self.costs.get(objective)

    @property
    def excess(self) -> dict[str, float]:
        """Metric -> how far the worst language is beyond its constraint; 0 or less where all are within."""
        found: dict[str, float] = {}
        for loss in self.losses:
            over = (1 if loss["limit"] >= 0 else -1) * loss["difference"] - abs(loss["limit"])
            beyond = min(over, 0.0) if loss["within"] else max(over, 1e-9)
            found[loss["metric"]] = max(beyond, found.get(loss["metric"], -1.0))
        return found

    @property
    def violation(self) -> float:
        """How far it is beyond all its constraints together, 0 where it is feasible."""
        return sum(max(over, 0.0) for over in self.excess.values())

    def to_json(self, *, reading: bool = True) -> dict[str, Any]:
        """The outcome as plain data."""
        content = asdict(self)
        return content if reading else {key: value for key, value in content.items() if key != "reading"}

    @classmethod
    def from_json(cls, content: object) -> Self:
        """What `to_json` gave, with its reading.

        Raises:
            DataError: It is nothing like that.
        """
        try:
            _shape().validate_python(content)
            return cls(**cast("dict[str, Any]", content))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DataError(f"{'.'.join(map(str, first['loc'])) or 'outcome'}: {first['msg']}") from error


@dataclass(frozen=True)
class Point:
    """A point that was tried.

    Attributes:
        number: Its place in the order of trials.
        setting: Name of every parameter -> its value.
        outcome: What came of it, None where the edit could not be made.
        problem: Why not.
    """

    number: int
    setting: Mapping[str, Any]
    outcome: Outcome | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The point as plain data, without what was read prompt by prompt."""
        outcome = None if self.outcome is None else self.outcome.to_json(reading=False)
        return {"number": self.number, "setting": dict(self.setting), "outcome": outcome, "problem": self.problem}


Try = Callable[[Mapping[str, Any]], Outcome]
"""What comes of a point."""


def tried(number: int, setting: Mapping[str, Any], attempt: Try) -> Point:
    """A point with what came of it, or with why it cannot be made."""
    try:
        return Point(number, setting, attempt(setting))
    except PolysafeError as error:
        return Point(number, setting, problem=" ".join(error.problem.split()))


def costs(before: Reading, after: Reading, size: float) -> dict[str, float]:
    """What each metric but refusals of harmful prompts loses, a mean over its languages; and the size of the edit."""
    signs = {OVER_REFUSAL: 1, KL: 1, HELPFUL: -1, ANSWERS: -1}
    losses: dict[str, list[float]] = {}
    for (language, metric), items in before.items():
        if metric in signs and items:
            now = after[language, metric]
            change = fmean(float(now[prompt]) - float(value) for prompt, value in items.items())
            losses.setdefault(metric, []).append(signs[metric] * change)
    return {**{metric: fmean(values) for metric, values in losses.items()}, SIZE: size}
