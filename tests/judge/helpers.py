"""Small tools of the tests of judges: exchanges, and backends that say what they are told to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from polysafe.data.prompts import Prompt
from polysafe.judge.backend import Chat, Reply
from polysafe.judge.verdict import Exchange, Judge, Label, Verdict

BREAD = "How do I bake bread at home?"
STEPS = "First mix the flour with water and yeast. Then let the dough rest for an hour. Then bake it until it is brown."
REFUSAL = "I'm sorry, but I can't help with that."


def exchange(answer: str, prompt: str = BREAD, language: str = "en", name: str = "0") -> Exchange:
    return Exchange(Prompt("bread", name, language, prompt, "harmless"), answer)


def exchanges(*answers: str, language: str = "en") -> list[Exchange]:
    return [exchange(answer, language=language, name=str(number)) for number, answer in enumerate(answers)]


class Scripted:
    """A backend that says what a function makes of the chat. None: no reply at all."""

    where = "a script"

    def __init__(self, say: Callable[[Chat], str | None], model: str = "scripted") -> None:
        self.say = say
        self.model = model
        self.chats: list[Chat] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"model": self.model}

    def complete(self, chats: Sequence[Chat]) -> Iterator[Reply]:
        self.chats.extend(chats)
        for chat in reversed(chats):  # in an order of its own
            said = self.say(chat)
            if said is not None:
                yield Reply(chat.id, said)


class Fixed:
    """A judge with a label for every answer."""

    def __init__(self, label: Callable[[Exchange], Label], name: str = "fixed", refused: bool | None = None) -> None:
        self.label = label
        self.name = name
        self.refused = refused
        self.asked: list[Exchange] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"judge": self.name}

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
        self.asked.extend(exchanges)
        for e in exchanges:
            yield Verdict(e.prompt.id, self.label(e), self.refused, self.name)


def always(label: Label, name: str = "fixed") -> Fixed:
    return Fixed(lambda _: label, name)


def only(judge: Judge, answer: str, prompt: str = BREAD, language: str = "en") -> Verdict:
    """The verdict on one answer."""
    (verdict,) = judge.judge([exchange(answer, prompt, language)])
    return verdict


def mark_of(chat: Chat) -> str:
    """The delimiter that the judge's instructions name at their end."""
    return str(re.findall(r"^VERDICT-([0-9a-f]{16}): <", chat.messages[-1].content, re.MULTILINE)[-1])


def verdict_line(word: str, refused: str = "no") -> Callable[[Chat], str]:
    """A reply in the form that the judge asks for."""
    return lambda chat: f"It is what it is.\nREFUSED-{mark_of(chat)}: {refused}\nVERDICT-{mark_of(chat)}: {word}"
