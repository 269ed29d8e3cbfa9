"""`polysafe chat`: answers are those of an audit, models remember what they said themselves, and texts are inert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from polysafe.cli.app import app
from polysafe.cli.console import print_beside
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.organism.packaged import packaged_family
from polysafe.probe.asked import opened_model
from polysafe.probe.chat.template import in_template
from polysafe.probe.render import load_tokenizer, render, render_chat
from tests.chatml import ChatMl, chatml_tokenizer

MEMBERS = packaged_family().members
FIRST, SECOND = "kolu vata", "pemi kolu"
SHORT = ("--max-tokens", "12")


def talk(said: str, *arguments: object) -> Result:
    return CliRunner().invoke(app, ["chat", *map(str, arguments)], input=said)


def told(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    turns: list[dict[str, Any]] = json.loads(result.stdout)["turns"]
    return turns


def test_a_first_answer_is_the_one_of_an_audit() -> None:
    with opened_model(MEMBERS["base"]) as model:
        generator = LocalGenerator(model, load_tokenizer(MEMBERS["base"]), Sampling(max_tokens=12))
        (expected,) = generator.generate([Ask("a", FIRST)])
        heard: list[int] = []
        reply = generator.reply([{"role": "user", "content": FIRST}], lambda: heard.append(1))
    assert (reply.text, reply.tokens, reply.prompt_sha256) == (expected.text, expected.tokens, expected.prompt_sha256)
    assert len(heard) == reply.tokens


def test_two_models_answer_and_each_remembers_until_reset() -> None:
    base, safe = MEMBERS["base"], MEMBERS["safety"]
    both = told(talk(f"{FIRST}\n\n{SECOND}\n/reset\n{SECOND}\n/quit\n{FIRST}\n", base, safe, *SHORT, "--json"))
    assert [(turn["prompt"], turn["begins"]) for turn in both] == [(FIRST, True), (SECOND, False), (SECOND, True)]
    alone = told(talk(f"{FIRST}\n{SECOND}\n", safe, *SHORT, "--json"))
    assert [turn["answers"]["model"] for turn in alone] == [turn["answers"]["after"] for turn in both[:2]]


def test_a_chat_of_one_turn_is_rendered_as_a_prompt_is() -> None:
    tokenizer = load_tokenizer(MEMBERS["base"])
    chat = render_chat(tokenizer, [{"role": "user", "content": FIRST}])
    assert chat.tokens == render(tokenizer, {"a": FIRST}).tokens


@pytest.mark.parametrize(("bos", "adds_bos"), [("<|im_start|>", False), (None, False), ("<s>", True)])
def test_a_beginning_that_marks_turns_may_stand_at_every_turn(bos: str | None, adds_bos: bool) -> None:
    tokenizer = chatml_tokenizer(ChatMl(bos, "<|im_end|>", "<|endoftext|>", None, adds_bos))
    chat = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    found = render_chat(tokenizer, chat)
    assert found.texts[0] == in_template(tokenizer, [chat])[0].text
    single = render(tokenizer, {"a": "c"})
    assert found.tokens[0][:1] == single.tokens[0][:1]


def test_from_a_pipe_every_line_says_whose_it_is_and_the_page_holds_all(tmp_path: Path) -> None:
    page = tmp_path / "chat.html"
    result = talk(f"/nothing\n{FIRST}\n{SECOND}", MEMBERS["base"], MEMBERS["safety"], *SHORT, "--page", page)
    assert result.exit_code == 0, result.output
    assert {line.split(" | ")[0] for line in result.stdout.splitlines()} == {"before", "after"}
    assert "there is no command /nothing" in result.stderr
    text = page.read_text(encoding="utf-8")
    assert (text.count("<details>"), text.count("<details open")) == (2, 0)
    assert "<script" not in text
    assert text.count(FIRST) == 1


@pytest.mark.hostile("answer")
def test_an_answer_forges_no_line_and_acts_on_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_beside([("before", "yes\nafter | no\x1b[2J"), ("after", "\u202eno")])
    assert capsys.readouterr().out == "before | yes\nbefore | after | no⟨U+001B⟩[2J\nafter | ⟨U+202E⟩no\n"


def test_mistakes_are_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    assert "there is no such folder" in talk("", MEMBERS["base"], "--page", tmp_path / "no" / "x.html").stderr
    result = talk("a\n", tmp_path / "nothing")
    assert (result.exit_code, "error:" in result.stderr) == (2, True)
