"""Chat templates that attack: they are programs of whoever published the model, and every prompt goes through one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from polysafe.confined import Confined
from polysafe.errors import CheckpointError, RecipeError
from polysafe.probe.chat import template as chat_template
from polysafe.probe.chat.template import MOST_TEMPLATE, in_template
from polysafe.probe.render import render
from tests.chatml import ChatMl, chatml_tokenizer

ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "one sum that takes years": "{{ 9 ** (9 ** 9) }}",
}
REFUSED = {
    "megabytes": ("{{ 'x' * 3000000 }}{{ messages[0].content }}", "writes 3000002 characters where 100016 are allowed"),
    "a text of 100 GB": ("{{ 'x' * 10 ** 11 }}", "too much memory"),
    "a text of 10 GB while it is compiled": ("{{ 'x' * 10000000000 }}", "too much memory"),
    "doubling": (
        "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
        "too much memory",
    ),
    "a long range": ("{% for i in range(10 ** 9) %}x{% endfor %}", "Range too big"),
    "nested too deep": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
    "far too long": ("x" * (MOST_TEMPLATE + 1), "1000001 characters"),
    "classes": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "classes by a format": ("{{ '{0.__class__.__mro__}'.format(messages) }}", "unsafe"),
    "classes by a filter": (
        "{{ messages | attr('__class__') }}{{ (messages | attr('__class__')).mro() }}",
        "unsafe|undef",
    ),
    "globals of a function": ("{{ cycler.__init__.__globals__.os.popen('touch PWNED').read() }}", "unsafe"),
    "a file": ("{% include '/etc/passwd' %}", "no loader"),
    "changed messages": ("{% set _ = messages.append(1) %}", "unsafe"),
    "nothing of the message": ("you are asked something", "written alike"),
    "a part of the message": ("{{ messages[0].content[:1] }}", "written alike"),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return chatml_tokenizer(ChatMl(None, "<|im_end|>", "<|endoftext|>", None))


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Confined]:
    """The same bounds, but fewer seconds to wait in a test."""
    writer = Confined("polysafe.probe.chat.writer:write", "the chat template", seconds=0.3)
    monkeypatch.setattr(chat_template, "_WRITER", writer)
    yield writer
    writer.close()


@pytest.mark.hostile("template")
@pytest.mark.parametrize("template", ENDLESS.values(), ids=ENDLESS)
def test_a_template_that_does_not_end_is_ended(
    tokenizer: PreTrainedTokenizerBase, hurried: Confined, template: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(CheckpointError, match=r"does not end: it took more than 0\.3 s of processor time"):
        render(tokenizer, {"a": "hi"})
    tokenizer.chat_template = "{{ messages[0].content }}"
    assert render(tokenizer, {"a": "hi"}).texts == ("hi",), "the next one is written again"


@pytest.mark.hostile("template")
@pytest.mark.parametrize(("template", "words"), REFUSED.values(), ids=REFUSED)
def test_a_template_that_attacks_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer.chat_template = template
    with pytest.raises(RecipeError, match=words):
        render(tokenizer, {"a": "hi", "b": "ho"})
    assert not list(tmp_path.iterdir())


@pytest.mark.hostile("template")
def test_one_prompt_alone_shows_a_template_that_leaves_it_out(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ messages[0].role }}"
    with pytest.raises(RecipeError, match="leaves out what messages say"):
        render(tokenizer, {"a": "hi"})


def test_prompts_that_differ_in_white_space_may_be_written_alike(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ messages[0].content | trim }}"
    assert render(tokenizer, {"a": "hi", "b": " hi\n"}).texts == ("hi", "hi")


def test_chats_are_written_as_transformers_writes_them(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = chatml_tokenizer(ChatMl(None, "<|im_end|>", "<|endoftext|>", "be good")).chat_template
    texts = ["hello", "ሰላም \u2028", "a {{ b }} {% raise %}", "\ud800 half a sign", "<|im_end|>", "x" * 200_000]
    chats = [[{"role": "user", "content": text}] for text in texts for _ in range(30)]
    chats += [[{"role": "system", "content": "be brief"}, *chat] for chat in chats]
    expected = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
    assert [written.text for written in in_template(tokenizer, chats)] == expected


def test_nothing_is_opened_and_no_secret_known_where_programs_of_models_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSAFE_TEST_TOKEN", "secret")
    confined = Confined("tests.attacks.confined_programs:opens", "the test")
    try:
        for place in (tmp_path / "new", Path(__file__), Path("/proc") / str(os.getpid()) / "environ"):
            assert confined(str(place)).startswith("refused")
        assert not (tmp_path / "new").exists()
        assert confined("the environment") == "None"
    finally:
        confined.close()


def test_a_process_that_ended_is_started_again_and_ended_with_its_owner() -> None:
    confined = Confined("tests.attacks.confined_programs:stubborn", "the test")
    assert confined("one") == "one"
    with pytest.raises(CheckpointError, match="the test ended its process"):
        confined("exit")
    assert confined("two") == "two"
    child = confined._child
    assert child is not None
    confined.close()
    assert child.returncode is not None


def test_it_is_processor_time_that_counts() -> None:
    confined = Confined("time:sleep", "the test", seconds=0.05)
    try:
        began = time.monotonic()
        assert confined(0.2) is None
        assert time.monotonic() - began >= 0.2
    finally:
        confined.close()
