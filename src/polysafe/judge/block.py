"""How a recipe names a judge: blocks, told apart by their `kind`.

A kind is one class: its fields are what a recipe may say, and it says how the judge is opened. One file a kind; a
package of another's own provides one by the entry-point group `polysafe.judges`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Union, get_args

from pydantic import (
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError
from pydantic_core.core_schema import with_info_plain_validator_function

from polysafe.files.paths import AbsolutePath
from polysafe.files.recipe_errors import problem
from polysafe.files.strict import Strict
from polysafe.registry import Registry

if TYPE_CHECKING:
    from polysafe.judge.opening import Opening
    from polysafe.judge.verdict import Judge

Url = Annotated[str, StringConstraints(pattern=r"^(batch\+)?https?://\S+$")]
ModelName = Annotated[str, StringConstraints(min_length=1)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Budget = Annotated[int, Field(ge=1)]


class Block(Strict):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Place(Block):
    """Where a model is: in a folder, or behind an OpenAI-compatible server."""

    path: AbsolutePath | None = None
    """Folder of the model; it runs in this process."""

    base_url: Url | None = None
    """Address of an OpenAI-compatible server's API; `batch+https://…` has it answer within a day, which costs less."""

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


class JudgeSpec(Block):
    """Who says whether an answer is unsafe: a block of a recipe. It names a judge and opens nothing until it is told.

    A kind has a field `kind`, a `Literal` of its names.

    Attributes:
        exact: It is for models whose every answer is known: nothing is checked around it, and it stands alone.
        votes: It can be one of the judges of a vote.
    """

    exact: ClassVar[bool] = False
    votes: ClassVar[bool] = True

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """What it is called."""

    def open(self, opening: Opening) -> Judge:
        """The judge, without the checks around it.

        Args:
            opening: What opens models, and closes them in the end.

        Raises:
            PolysafeError: As for loading a model.
        """
        raise NotImplementedError

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """What judges of this class are called."""
        field = cls.model_fields.get("kind")
        return () if field is None else get_args(field.annotation)

    @classmethod
    def short_forms(cls) -> Mapping[str, Mapping[str, Any]]:
        """What stands before `=` on the command line -> what a recipe would say."""
        return {kind: {"kind": kind} for kind in cls.kinds()}


def _kinds(value: object) -> tuple[str, ...]:
    return value.kinds() if isinstance(value, type) and issubclass(value, JudgeSpec) else ()


GROUP = "polysafe.judges"
JUDGES: Registry[type[JudgeSpec]] = Registry(
    "kind of judge", GROUP, ("polysafe.judge.kinds", "polysafe.judge.guards"), _kinds
)


def _printable(kind: object) -> str:
    """What was named, without half characters, which pydantic does not take."""
    return str(kind).encode("utf-8", "backslashreplace").decode()


def has_kind(name: object) -> bool:
    """Whether a judge is called so."""
    return isinstance(name, str) and name in JUDGES.names()


@dataclass(frozen=True)
class ByKind:
    """Says of a field that it holds a judge, whose class its `kind` tells. Kinds are looked up when they are named.

    Attributes:
        allowed: Which kinds may stand there.
    """

    allowed: Callable[[type[JudgeSpec]], bool] = lambda _: True

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Checks by `_validate`; what is written is what the found class writes."""
        return with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """All kinds that may stand there."""
        blocks = tuple(dict.fromkeys(JUDGES.get(name) for name in self._names()))
        union: Any = Annotated[Union[blocks], Field(discriminator="kind")]  # noqa: UP007  (computed)
        return handler(TypeAdapter(union).core_schema)

    def _names(self) -> list[str]:
        return [name for name in JUDGES.names() if name not in JUDGES.own or self.allowed(JUDGES.own[name])]

    def _validate(self, value: object, info: ValidationInfo) -> JudgeSpec:
        if isinstance(value, JudgeSpec):
            kind: object = value.kind
        elif not isinstance(value, Mapping):
            raise PydanticKnownError("model_attributes_type")
        elif "kind" not in value:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'kind'"})
        else:
            kind = value["kind"]
        if not has_kind(kind) or not self.allowed(JUDGES.get(str(kind))):
            expected = ", ".join(map(repr, self._names()))
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": "'kind'", "tag": _printable(kind), "expected_tags": expected}
            )
        return JUDGES.get(str(kind)).model_validate(value, context=info.context)


JudgeBlock = Annotated[JudgeSpec, ByKind()]
"""Any judge."""
VotingBlock = Annotated[JudgeSpec, ByKind(lambda block: block.votes)]
"""A judge that can be one of several."""
