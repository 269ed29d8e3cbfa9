"""What an audit and an evaluation are told: each setting is declared and documented here, and nowhere else.

A verb takes one of these values. `told_by` makes a function of it that takes the fields by their names, as
`polysafe.audit(…, limit=20)` does; type checkers and `help` see the fields too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from inspect import cleandoc, signature
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

from polysafe.data.organism import ANSWER_TOKENS, Organism, load_prompts
from polysafe.data.prompts import Kind, PromptSet
from polysafe.evaluate.opening import Opener, open_model
from polysafe.generate.completion import Sampling
from polysafe.judge.block import JudgeSpec
from polysafe.judge.kinds.organism import OrganismSpec
from polysafe.probe.render import Template
from polysafe.progress import Progress, tell
from polysafe.recipe.measures import Evaluate

_RECORDED = ("limit", "pivot", "max_tokens", "device", "dtype")

Given = ParamSpec("Given")
Value = TypeVar("Value")
Result = TypeVar("Result")


def most_tokens(wanted: int | None, judge: JudgeSpec | None) -> int:
    """The budget of an answer: what is wanted, or what answers of the models that a judge is for usually need."""
    return wanted or (ANSWER_TOKENS if isinstance(judge, OrganismSpec) else Sampling().max_tokens)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How models are asked and judged, whatever they are asked.

    Attributes:
        judge: Nobody where None; `organism` for a model of the toy family; `KIND=FOLDER` or `KIND=NAME@URL` for a guard
            model of a family (`qwen3guard`, …) or a language model with a protocol (`multijail`, `soteria`, `strict`,
            `loose`); several of these are a vote; or the judge of a recipe.
        judge_key: Environment variable with the key of the servers of judge and translator, where they are no recipe's.
        calibration: File of the judge's measured error, by which unsafe rates are corrected; kept with the run.
        data: Folder with a folder per set.
        limit: Number of parallel rows of every set.
        pivot: Language that the others are compared with.
        max_tokens: Most new tokens of an answer: 256, and 8 for a model of the toy family.
        device: Where models run; the processor by default.
        dtype: Type that a model in a folder is computed in: `F32` (on a processor the default), `BF16` or `F16`.
        cache: File of the cache; the user's own by default.
        opened_by: Opens a model: in this process, or as `cluster.models` does on others.
        progress: Called as `progress(what, done, total)`.
    """

    judge: JudgeSpec | str | Sequence[str] | None = None
    judge_key: str | None = None
    calibration: Path | None = None
    data: Path | None = None
    limit: int | None = None
    pivot: str = "en"
    max_tokens: int | None = None
    device: str | None = None
    dtype: str | None = None
    cache: Path | None = None
    opened_by: Opener = open_model
    progress: Progress = tell

    @property
    def recorded(self) -> dict[str, Any]:
        """What decides results beside a recipe, in values that JSON can hold; `recalled` reads it."""
        return {name: getattr(self, name) for name in _RECORDED}


def recalled(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Settings` that a record says."""
    return {name: recorded[name] for name in _RECORDED if name in recorded}


@dataclass(frozen=True, kw_only=True)
class Asking(Settings):
    """One model that is asked, and how.

    Attributes:
        model: Folder of the model, or `NAME@URL` for one that a server runs.
        output: Folder of the run.
        safety: Sets whose harmful prompts are asked, by name, or tables of them (`mine.csv`); `organism` is the toy
            family's own test split, and `organism.contrast` those of its harmless requests that look harmful.
        over_refusal: Sets whose harmless prompts are asked, or tables of them.
        capability: Tasks that measure ability, by name: `belebele`, `mgsm`, … (`lm_eval.prepare`); `organism` are the
            toy family's own.
        attacks: Attacks that the prompts of all sets are asked under too, by name (`data.attacks`), or templates of
            them (`mine.txt`). Each is a run of its own in `attacks/` of the output; nothing else hangs on them.
        languages: Languages; all of every set by default. A set is asked in those of them that it has.
        template: `chat`, or `raw` for a base model, which goes on from the prompt as it stands.
        answers_only: Ask, and measure nothing that a judge could measure later (`polysafe judge run`).
        translate: `FOLDER` or `NAME@URL` of a translator: answers are judged as they are and in English.
        family: For an edited model of the toy family, the member that it was made from; its world is meant.
        key: Environment variable with the key of the model's server.
    """

    model: Path | str = field(kw_only=False)
    output: Path
    safety: Sequence[str | Path]
    over_refusal: Sequence[str | Path] = ()
    capability: Sequence[str] = ()
    attacks: Sequence[str | Path] = ()
    languages: Collection[str] | None = None
    template: Template = "chat"
    answers_only: bool = False
    translate: str | None = None
    family: Path | None = None
    key: str | None = None

    @classmethod
    def of(cls, block: Evaluate, told: Settings, model: Path, output: Path) -> Self:
        """A model that is asked what a recipe says, by the recipe's judge.

        Args:
            block: What the recipe says.
            told: Everything else; the work is told to whoever listens already.
            model: Folder of the model.
            output: Folder of its run.
        """
        asked = ("judge", "calibration", "safety", "over_refusal", "capability", "attacks", "languages", "template")
        settings = {each.name: getattr(told, each.name) for each in fields(Settings)}
        return cls(
            model,
            output=output,
            **{**settings, "progress": tell, "judge_key": None, **{name: getattr(block, name) for name in asked}},
        )

    def prompts(self, kind: Kind, organism: Callable[[], Organism]) -> list[PromptSet]:
        """The sets of a kind, in the languages that they have.

        Args:
            kind: `harmful` prompts, or `harmless` ones.
            organism: Gives the organism, if one is asked for.

        Raises:
            DataError: As for `load_prompts`.
        """
        return [
            load_prompts(
                name,
                organism,
                kind=kind,
                data=self.data,
                languages=self.languages,
                limit=self.limit,
                all_languages=False,
            )
            for name in (self.safety if kind == "harmful" else self.over_refusal)
        ]


def told_by(value: Callable[Given, Value]) -> Callable[[Callable[[Value], Result]], Callable[Given, Result]]:
    """Lets a function of a value be called with the fields of the value; its help lists and explains them.

    Args:
        value: Class of the value, a dataclass whose docstring explains its attributes.
    """

    def decorate(function: Callable[[Value], Result]) -> Callable[Given, Result]:
        @wraps(function)
        def call(*args: Given.args, **given: Given.kwargs) -> Result:
            return function(value(*args, **given))

        returns = signature(function).return_annotation
        call.__signature__ = signature(value).replace(return_annotation=returns)  # type: ignore[attr-defined]
        summary, title, raises = cleandoc(function.__doc__ or "").partition("Raises:\n")
        call.__doc__ = "\n".join([f"{summary}Args:", *_documented(value), "", title + raises])
        return call

    return decorate


def _documented(value: object) -> Iterator[str]:
    """The lines that explain the attributes of a class; its own first, as they are the ones without a default."""
    assert isinstance(value, type)
    for each in value.__mro__:
        yield from cleandoc(each.__doc__ or "").partition("Attributes:\n")[2].rstrip().splitlines()
