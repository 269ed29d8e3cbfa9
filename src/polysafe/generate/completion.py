"""What a generator is asked for and gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

Ending = Literal["stop", "length"]
TEST_QUESTION = "What is the capital of France?"
"""What models and judges are asked first, before anything long starts; no answer to it is kept."""


class Sampling(BaseModel):
    """How answers are drawn. The same settings hold before and after an edit.

    Attributes:
        max_tokens: Most new tokens of an answer.
        temperature: 0 is greedy; then nothing below matters.
        top_p: Mass of the nucleus.
        seed: Seed where something is drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class Ask:
    """A message that wants an answer.

    Attributes:
        id: Name of the message, unique within a call.
        text: What the user says; the generator puts it into the chat template.
    """

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer.

    Attributes:
        id: Name of the message that it answers.
        text: The answer, special tokens left out.
        ending: Whether the model ended it, or the budget.
        tokens: New tokens, None where the server does not say.
        prompt_sha256: SHA-256 of the token ids that the model read, None where only the server knows them.
        token_ids: The answer's tokens without the one that ended it, None where only the server knows them; no record
            keeps them.
    """

    id: str
    text: str
    ending: Ending
    tokens: int | None = None
    prompt_sha256: str | None = None
    token_ids: tuple[int, ...] | None = field(default=None, compare=False)


class Generator(Protocol):
    """Something that answers."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides an answer besides the message, in values that JSON can hold.

        Weights, tokenizer, template, engine, dtype and sampling: two generators whose identities are equal give the
        same answers, so that this may be the key of a cache.
        """

    def generate(self, asks: Sequence[Ask]) -> Iterator[Completion]:
        """Answers, each as soon as it is there, in any order; every message is answered exactly once.

        Raises:
            ResourceError: The model does not fit, or the server stays unreachable.
            DataError: A message is too long for the model; the message names it.
        """
