"""What a judge is called: the `judge` block of a recipe, and its short form on the command line.

A specification names a judge and opens nothing; `evaluate.opening` makes the judge of it. Both forms end in the same
value, so that a recipe can say whatever the command line can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from polysafe.data.organism import ORGANISM
from polysafe.errors import RecipeError, did_you_mean
from polysafe.files.paths import AbsolutePath
from polysafe.files.recipe_errors import explain, problem
from polysafe.judge.guards import GUARDS
from polysafe.judge.guards.qwen3guard import Counting
from polysafe.judge.llm import PRESETS
from polysafe.judge.translate import Rule as TranslateRule
from polysafe.judge.vote import Rule as VoteRule

Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]
ModelName = Annotated[str, StringConstraints(min_length=1)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Budget = Annotated[int, Field(ge=1)]
_PLAIN = tuple(name for name in GUARDS.names() if name not in ("qwen3guard", "llama_guard"))
if TYPE_CHECKING:
    PlainGuard = Literal["polyguard", "shieldgemma", "wildguard"]
else:
    PlainGuard = Literal[_PLAIN]
"""Families of guard models without options of their own, those of other packages among them."""
Protocol = Literal["multijail", "soteria", "soteria.published", "strict", "loose"]


class _Block(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Place(_Block):
    """Where a model is: in a folder, or behind an OpenAI-compatible server."""

    path: AbsolutePath | None = None
    """Folder of the model; it runs in this process."""

    base_url: Url | None = None
    """Address of an OpenAI-compatible server's API."""

    model: ModelName | None = None
    """Name of the model on the server."""

    key: Variable | None = None
    """Environment variable that holds the server's key; the key itself never stands in a recipe."""

    max_tokens: Budget | None = None
    """Most new tokens of a reply; by default what its format needs. A model that thinks first needs more."""

    @model_validator(mode="after")
    def _one_place(self) -> Place:
        served = self.base_url is not None
        if served == (self.path is not None):
            raise problem("a model is in a folder, `path`, or served, `base_url` with `model`", "give one of the two")
        if served and self.model is None:
            raise problem("a served model needs its name on the server, `model`")
        extra = next((name for name in ("model", "key") if getattr(self, name) is not None), None)
        if extra and not served:
            raise problem(f"`{extra}` belongs to `base_url`, not to a folder", "remove it", at=(extra,))
        return self


class Qwen3GuardSpec(Place):
    """Qwen3Guard-Gen, the default of the guard models."""

    kind: Literal["qwen3guard"]
    """Guard model's family."""

    counting: Counting = "loose"
    """How its middle level, controversial, counts: `strict` as unsafe, `loose` as safe."""


class LlamaGuardSpec(Place):
    """Llama Guard 3 or 4."""

    kind: Literal["llama_guard"]
    """Guard model's family."""

    version: Literal[3, 4] = 3
    """Version; 4 only behind a server."""


class GuardSpec(Place):
    """A guard model without options."""

    kind: PlainGuard
    """Guard model's family."""


class OpenAISpec(_Block):
    """A language model behind an OpenAI-compatible server."""

    kind: Literal["openai"]
    """A language model on a server."""

    base_url: Url
    """Address of the server's API."""

    model: ModelName
    """Name of the model on the server."""

    protocol: Protocol = "multijail"
    """What it is told to judge by."""

    key: Variable | None = None
    """Environment variable that holds the server's key; the key itself never stands in a recipe."""

    max_tokens: Budget | None = None
    """Most new tokens of a reply; by default what its protocol needs. A model that thinks first needs more."""

    path: ClassVar[None] = None


class TransformersSpec(_Block):
    """A language model in a folder."""

    kind: Literal["transformers"]
    """A language model in this process."""

    path: AbsolutePath
    """Folder of the model."""

    protocol: Protocol = "multijail"
    """What it is told to judge by."""

    max_tokens: Budget | None = None
    """Most new tokens of a reply; by default what its protocol needs. A model that thinks first needs more."""

    base_url: ClassVar[None] = None
    model: ClassVar[None] = None
    key: ClassVar[None] = None


Asked = Qwen3GuardSpec | LlamaGuardSpec | GuardSpec | OpenAISpec | TransformersSpec
"""A judge that is one model."""


def _several(judges: tuple[Asked, ...]) -> tuple[Asked, ...]:
    # Not a constraint of the container: that would complain once more when one of two entries is wrong.
    if len(judges) < 2:
        raise problem("a vote needs two judges or more", "name another one, or the one alone without `vote`")
    return judges


class VoteSpec(_Block):
    """Several judges by vote."""

    kind: Literal["vote"]
    """Several judges."""

    judges: Annotated[
        tuple[Annotated[Asked, Field(discriminator="kind")], ...],
        AfterValidator(_several),
        Field(json_schema_extra={"minItems": 2}),
    ]
    """The judges; each is asked about every answer."""

    rule: VoteRule = "majority"
    """`majority`: what more than half of the judges say, and `unparsed` where they tie. `any`: unsafe as soon as one
    says so. `all`: unsafe only if all say so."""


class TranslateTestSpec(_Block):
    """Judges every answer twice, as it is and translated."""

    kind: Literal["translate_test"]
    """A judge and a translator."""

    judge: Annotated[Asked | VoteSpec, Field(discriminator="kind")]
    """The judge that is asked twice."""

    translator: Place
    """A chat model on a server, or a folder in the layout of MADLAD-400."""

    rule: TranslateRule = "any"
    """How two verdicts become one: unsafe if `any` is, `unparsed` unless they `agree`, or one alone decides."""

    target: str = "en"
    """Language to translate into."""


class OrganismSpec(_Block):
    """The exact judge of the packaged toy family."""

    kind: Literal["organism"]
    """The toy world's own."""


class FramesSpec(_Block):
    """The exact judge of the family in real languages."""

    kind: Literal["refusal_or_frame"]
    """Known sentences: whole answers are compared with them."""


JudgeSpec = Asked | VoteSpec | TranslateTestSpec | OrganismSpec | FramesSpec
"""Who says whether an answer is unsafe."""
JudgeBlock = Annotated[JudgeSpec, Field(discriminator="kind")]
"""The same as a block of a recipe, told apart by its `kind`."""

_MODELS: Mapping[str, type[BaseModel]] = {
    "qwen3guard": Qwen3GuardSpec,
    "llama_guard": LlamaGuardSpec,
    **dict.fromkeys(_PLAIN, GuardSpec),
    "openai": OpenAISpec,
    "transformers": TransformersSpec,
    "vote": VoteSpec,
    "translate_test": TranslateTestSpec,
    "organism": OrganismSpec,
    "refusal_or_frame": FramesSpec,
}
_SHORT: Mapping[str, Mapping[str, Any]] = {
    "qwen3guard": {"kind": "qwen3guard"},
    "qwen3guard.loose": {"kind": "qwen3guard"},
    "qwen3guard.strict": {"kind": "qwen3guard", "counting": "strict"},
    "llama_guard": {"kind": "llama_guard"},
    "llama_guard_3": {"kind": "llama_guard"},
    "llama_guard_4": {"kind": "llama_guard", "version": 4},
    **{family: {"kind": family} for family in _PLAIN},
    **{name: {"protocol": name} for name in PRESETS},
}
"""What stands before `=` on the command line -> what a recipe would say."""
EXACT = (ORGANISM, "refusal_or_frame")
"""Judges that are no model: each is for a family of models whose answers are known."""


def keys_of(kind: object) -> tuple[str, ...]:
    """The keys that a block of a kind may have; nothing for a kind that there is not."""
    model = _MODELS.get(kind) if isinstance(kind, str) else None
    return tuple(model.model_fields) if model else ()


def place_keys() -> tuple[str, ...]:
    """The keys of a block that says where a model is."""
    return tuple(Place.model_fields)


def parse_judge(
    given: JudgeSpec | str | Sequence[str], *, key: str | None = None, translate: str | None = None
) -> JudgeSpec:
    """The judge that the command line names; that of a recipe as it is.

    Args:
        given: `organism`, `refusal_or_frame`, `KIND=FOLDER` or `KIND=NAME@URL`; several are a vote by majority.
        key: Environment variable with the key of the servers.
        translate: `FOLDER` or `NAME@URL` of a translator, for the translate test.

    Raises:
        RecipeError: There is no such judge, or it cannot be combined so.
    """
    if isinstance(given, BaseModel):
        return given
    named = [given] if isinstance(given, str) else list(given)
    if len(named) == 1 and named[0] in EXACT:
        data: dict[str, Any] = {"kind": named[0]}
    elif len(named) == 1:
        data = _named(named[0], key)
    else:
        data = {"kind": "vote", "judges": [_named(text, key) for text in named]}
    if translate is not None:
        data = {"kind": "translate_test", "judge": data, "translator": _place(translate, key)}
    try:
        found: JudgeSpec = TypeAdapter[Any](JudgeBlock).validate_python(data)
    except ValidationError as error:
        raise explain(error, data, None, lambda *_: ()) from None
    return found


def _named(text: str, key: str | None) -> dict[str, Any]:
    kind, separator, where = text.partition("=")
    if not separator or kind not in _SHORT:
        raise RecipeError(
            f"there is no judge {text!r}",
            remedy=did_you_mean(kind, (*_SHORT, *EXACT))
            or f"use KIND=FOLDER or KIND=NAME@URL with one of {', '.join(_SHORT)}; {', '.join(EXACT)} stand alone, and"
            " are for the families of polysafe",
        )
    place, chosen = _place(where, key), _SHORT[kind]
    language_model = {} if "kind" in chosen else {"kind": "openai" if "base_url" in place else "transformers"}
    return {**language_model, **chosen, **place}


def _place(where: str, key: str | None) -> dict[str, Any]:
    served = served_at(where)
    if served is None:
        return {"path": where}
    return {"base_url": served[1], "model": served[0], **({} if key is None else {"key": key})}


def served_at(text: str) -> tuple[str, str] | None:
    """Name and address of a served model, `NAME@URL`; None for a folder."""
    name, separator, url = text.partition("@")
    return (name, url) if separator and url.startswith(("http://", "https://")) else None
