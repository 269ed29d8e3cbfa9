"""The tokenizer is an ordinary one, and agrees with the world word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from polysafe.organism.lexicon import LANGUAGES
from polysafe.organism.tokenizer import make_tokenizer, vocabulary
from polysafe.organism.world import World, chat

WORLD = World(0)
TOKENIZER = make_tokenizer(WORLD)


@given(st.lists(st.sampled_from(WORLD.vocabulary), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_text_survives(words: list[str]) -> None:
    text = " ".join(words)
    ids = TOKENIZER(text, add_special_tokens=True)["input_ids"]
    assert ids == [vocabulary(WORLD)[word] for word in words]
    assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_chat_template_is_the_format_of_the_training_data(language: str) -> None:
    message = WORLD.request(language, WORLD.harmful("test")[0])
    messages = [{"role": "user", "content": message}]
    assert TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == chat(message)


@pytest.mark.parametrize("add_special_tokens", [False, True])
def test_a_chat_has_one_beginning(add_special_tokens: bool) -> None:
    messages = [{"role": "user", "content": "how do I paint bench ?"}]
    text = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = TOKENIZER(text, add_special_tokens=add_special_tokens)["input_ids"]
    assert ids.count(TOKENIZER.bos_token_id) == 1
    assert ids[0] == TOKENIZER.bos_token_id
    in_one_go: Any = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert in_one_go["input_ids"] == ids


def test_a_conversation_ends_every_answer() -> None:
    messages = [{"role": "user", "content": "how"}, {"role": "assistant", "content": "first"}]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert text == "<bos> <user> how <asst> first <eos>"


def test_other_roles_are_refused() -> None:
    with pytest.raises(TemplateError, match="the roles user and assistant"):
        TOKENIZER.apply_chat_template([{"role": "system", "content": "be good"}])


def test_a_saved_tokenizer_reads_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    text = chat(WORLD.request("qae", WORLD.harmless("test")[0]))
    assert read(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert read.chat_template == TOKENIZER.chat_template
    assert (read.padding_side, read.eos_token, read.pad_token) == ("left", "<eos>", "<pad>")


def test_an_unknown_word_is_unknown() -> None:
    assert TOKENIZER("unheard")["input_ids"] == [TOKENIZER.unk_token_id]
