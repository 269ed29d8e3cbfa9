"""WildGuard."""

from __future__ import annotations

from polysafe.judge.backend import Chat, Message
from polysafe.judge.documented import ENGLISH
from polysafe.judge.guards.base import (
    CLASSIFIER,
    ThreeQuestions,
)
from polysafe.judge.text.fence import Shown


class WildGuard(ThreeQuestions):
    """WildGuard (arXiv 2406.18495), English only: the three questions.

    The model reads a plain text and has no chat template for it: the backend must take a raw text. Format and fields:
    allenai/wildguard, wildguard/utils.py and wildguard.py (Apache-2.0, see NOTICE); the text there begins with the
    token that begins every text, which the backend adds.
    """

    family = "wildguard"
    languages = ENGLISH
    reply_tokens = 32  # three lines of yes or no; what its authors allow

    def questions(self, prompt: Shown, answer: Shown, name: str) -> tuple[Chat, ...]:
        """One raw text."""
        text = (
            f"<|user|>\n[INST] {CLASSIFIER}\n\nHuman user:\n{prompt.text}\n\nAI assistant:\n{answer.text}\n\n---\n\n"
            "Answers: [/INST]\n<|assistant|>\n"
        )
        return (Chat(name, (Message("user", text),), raw=True),)
