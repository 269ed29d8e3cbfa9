"""Chats in a tokenizer's chat template: a program of the model's publisher, run in a process that is held to bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from polysafe.confined import Confined
from polysafe.errors import RecipeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
"""Messages of a chat, `role` and `content` of each."""


class Written(NamedTuple):
    """A chat as text.

    Attributes:
        text: The text; empty where there is none.
        problem: Why there is none, empty where there is.
    """

    text: str
    problem: str = ""


MOST_TEMPLATE = 1_000_000
"""Most characters of a template; those of real models have up to some ten thousand."""
_PART = 64
"""Chats that are written together, and share the processor time of a call."""
_SAMPLE: Messages = ({"role": "user", "content": "a"},)
"""A chat that is none of those that are asked."""

_WRITER = Confined("polysafe.probe.chat.writer:write", "the chat template")


def in_template(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages]) -> list[Written]:
    """Every chat as text, with the beginning of the answer at its end.

    Args:
        tokenizer: A tokenizer with a chat template.
        chats: The messages of every chat.

    Raises:
        CheckpointError: The template takes more time or memory than any template needs.
        RecipeError: There are several templates and none is the usual one, it is far too long, or it leaves out what
            messages say.
    """
    *found, sample = _in_template(tokenizer, [*chats, _SAMPLE])
    _check_told_apart([*chats, _SAMPLE], [*found, sample])
    return found


def _in_template(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Messages]) -> list[Written]:
    from transformers import PreTrainedTokenizerBase as Usual

    if type(tokenizer).apply_chat_template is not Usual.apply_chat_template:  # written in Python, not in the folder
        return [_own(tokenizer, messages) for messages in chats]
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise RecipeError(f"no chat template can be chosen: {error}") from error
    if len(template) > MOST_TEMPLATE:
        raise RecipeError(f"the chat template has {len(template)} characters, {MOST_TEMPLATE} are allowed")
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    found: list[Written] = []
    for first in range(0, len(chats), _PART):
        part = [list(map(dict, messages)) for messages in chats[first : first + _PART]]
        found += [Written(*each) for each in _WRITER({"template": template, "tokens": tokens, "chats": part})]
    return found


def _own(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Written:
    try:
        chat = list(map(dict, messages))
        return Written(str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)))
    except Exception as error:  # noqa: BLE001  (it raises what it likes)
        return Written("", str(error) or type(error).__name__)


def _said(message: Mapping[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(str(part.get("text")) for part in content)


def _check_told_apart(chats: Sequence[Messages], written: Sequence[Written]) -> None:
    """A template that leaves messages out would have every prompt answered alike; white space it may change."""
    seen: dict[str, str] = {}
    for messages, each in zip(chats, written, strict=True):
        said = "".join("".join(map(_said, messages)).split())
        if not each.problem and seen.setdefault(each.text, said) != said:
            raise RecipeError(
                "the chat template leaves out what messages say: different ones are written alike",
                remedy="give the model the chat template of its publisher, or use template: raw",
            )
