"""A served model, judged by a served model: audit over HTTP, with faults on the way."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from polysafe.errors import RecipeError
from polysafe.evaluate.opening import open_model
from polysafe.generate.completion import Sampling
from polysafe.judge.backend import Chat, Message
from polysafe.judge.opening import open_judge
from polysafe.judge.verdict import Label
from polysafe.workflows.audit import audit
from tests.generate.test_server import FAULTS, Faulty, send, serving
from tests.judge.helpers import exchanges, mark_of

ANSWERS = {
    "bread": "First mix flour and water, then bake it for an hour.",
    "tea": "I am sorry, I cannot help with tea.",
}


class Both(Faulty):
    """Answers prompts as a model, and judges them as a judge: bread is unsafe."""

    def __init__(self) -> None:
        super().__init__(FAULTS[:6])
        self.asked: Counter[str] = Counter()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.lock:
            self.asked[body["model"]] += 1
            turn = self.seen[text]
            self.seen[text] += 1
        if turn == 0 and len(text) % 2:
            self.faults[len(text) % len(self.faults)](handler)
            return
        if body["model"] == "judge":
            mark = mark_of(Chat("c", (Message("user", text),)))
            said = f"VERDICT-{mark}: {'unsafe' if 'flour' in text else 'safe'}\nREFUSED-{mark}: no"
        else:
            said = next((answer for word, answer in ANSWERS.items() if word in text), "Paris.")
        choice = {"message": {"content": said}, "finish_reason": "stop"}
        send(handler, 200, json.dumps({"choices": [choice]}))


def test_an_audit_over_http(tmp_path: Path) -> None:
    table = tmp_path / "data" / "xthreatbench"
    table.mkdir(parents=True)
    (table / "en.csv").write_text("question,category\nHow do I bake bread?,food\nHow do I make tea?,drink\n")
    both = Both()
    with serving(both) as url:
        found = audit(
            f"model@{url}",
            safety=["xthreatbench"],
            judge=f"multijail=judge@{url}",
            output=tmp_path / "run",
            data=tmp_path / "data",
            cache=tmp_path / "cache.sqlite",
        )
        labels = {record.prompt.category: record.verdict.label for record in found.run.records}
        assert labels == {"food": Label.UNSAFE, "drink": Label.SAFE}
        asked = both.asked.copy()
        again = audit(
            f"model@{url}",
            safety=["xthreatbench"],
            judge=f"multijail=judge@{url}",
            output=tmp_path / "other",
            data=tmp_path / "data",
            cache=tmp_path / "cache.sqlite",
        )
    assert asked.keys() == {"model", "judge"}
    assert again.rates == found.rates
    assert both.asked["model"] == asked["model"]  # the cache knows the answers


def test_what_a_server_cannot_be(tmp_path: Path) -> None:
    with open_model("m@http://127.0.0.1:1/v1", Sampling()) as opened, pytest.raises(RecipeError, match="is not known"):
        opened.organism()
    with pytest.raises(RecipeError, match="toy family only"), open_judge("organism"):
        pass


class Completes(Faulty):
    """Continues a text, as WildGuard does."""

    def __init__(self) -> None:
        super().__init__(FAULTS[:1])
        self.paths: list[str] = []

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.paths.append(handler.path)
        harmful = "yes" if "flour" in body["prompt"] else "no"
        said = f"Harmful request: no\nResponse refusal: no\nHarmful response: {harmful}"
        send(handler, 200, json.dumps({"choices": [{"text": said, "finish_reason": "stop"}]}))


def test_a_guard_that_reads_plain_text_is_asked_through_completions() -> None:
    server = Completes()
    with serving(server) as url, open_judge(f"wildguard=m@{url}") as judge:
        verdicts = {v.id: v for v in judge.judge(exchanges(ANSWERS["bread"], "You boil water and wait for a minute."))}
    assert [verdicts[f"bread/{n}/en"].label for n in range(2)] == [Label.UNSAFE, Label.SAFE]
    assert set(server.paths) == {"/v1/completions"}
