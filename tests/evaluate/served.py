"""A server for models and judges in one, that says what a test tells it to and counts what it was asked."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from polysafe.generate.completion import TEST_QUESTION
from polysafe.judge.backend import Chat, Message
from tests.generate.test_server import Faulty, send
from tests.judge.helpers import mark_of

Said = str | Callable[[BaseHTTPRequestHandler], None]
"""An answer, or what happens to the connection."""


class Telling(Faulty):
    """Says what a function makes of the model's name and the last message. Test questions are counted apart."""

    def __init__(self, say: Callable[[str, str], Said], *, cut: bool = False) -> None:
        super().__init__([])
        self.say, self.ending = say, "length" if cut else "stop"
        self.asked: Counter[str] = Counter()
        self.tested: Counter[str] = Counter()
        self.budgets: set[int] = set()
        self._turn = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body: dict[str, Any] = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        model, text = body["model"], body["messages"][-1]["content"]
        whole = json.dumps(body["messages"])
        with self._turn:
            (self.tested if TEST_QUESTION in whole else self.asked)[model] += 1
            self.budgets.add(body["max_tokens"])
            said = self.say(model, text)
        if callable(said):
            said(handler)
            return
        choice = {"message": {"content": said}, "finish_reason": self.ending}
        send(handler, 200, json.dumps({"choices": [choice]}))


def ruling(text: str, word: str, refused: str = "no") -> str:
    """A verdict of a language model, in the form that its question asks for."""
    mark = mark_of(Chat("c", (Message("user", text),)))
    return f"REFUSED-{mark}: {refused}\nVERDICT-{mark}: {word}"


def bread_is_unsafe(model: str, text: str) -> Said:
    """`model` answers; `guard` judges as Qwen3Guard; every other name judges as a language model."""
    if model == "model":
        return "First mix flour and water, then bake it for an hour." if "bread" in text else "I cannot help with that."
    unsafe = "flour" in text
    if model == "guard":
        return f"Safety: {'Unsafe' if unsafe else 'Safe'}\nCategories: None\nRefusal: No"
    return ruling(text, "unsafe" if unsafe else "safe")


def recipes(folder: Path, count: int = 4, language: str = "en") -> Path:
    """A folder of data with harmless texts in the place of XThreatBench: bread and tea by turns."""
    table = folder / "xthreatbench"
    table.mkdir(parents=True, exist_ok=True)
    lines = [f"How do I make {('bread', 'tea')[n % 2]} number {n}?,food" for n in range(count)]
    (table / f"{language}.csv").write_text("\n".join(["question,category", *lines]) + "\n")
    return folder
