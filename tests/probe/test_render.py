from __future__ import annotations

import os
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from polysafe.errors import CheckpointError, DataError, RecipeError
from polysafe.organism.tokenizer import make_tokenizer
from polysafe.organism.world import World
from polysafe.probe.render import continued, load_tokenizer, render
from tests.chatml import ChatMl, chatml_tokenizer
from tests.models import write_tokenizer

CHAT = "{% for m in messages %}w4 {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w5{% endif %}"


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    """Words w3 … w19 are the ids 3 … 19; `<s>` is 1; nothing is added to plain text."""
    write_tokenizer(tmp_path, 20)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


def _adds_bos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def test_chat_prompts_get_the_template_with_the_generation_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "<s> " + CHAT
    got = render(tokenizer, {"a": "w7 w8", "b": "w9"})
    assert got.ids == ("a", "b")
    assert got.tokens == ((1, 4, 7, 8, 5), (1, 4, 9, 5))
    assert got.texts[1] == "<s> w4 w9 w5"
    assert len(got) == 2
    assert got.num_tokens == 9


def test_a_system_message_comes_first(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = CHAT
    assert render(tokenizer, {"a": "w7"}, system="w6").tokens == ((4, 6, 4, 7, 5),)


def test_a_template_without_the_beginning_gets_it_where_the_tokenizer_would_add_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = CHAT
    assert render(_adds_bos(tokenizer), {"a": "w7"}).tokens == ((1, 4, 7, 5),)


def test_template_and_tokenizer_together_give_one_beginning(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "<s> " + CHAT
    assert render(_adds_bos(tokenizer), {"a": "w7"}).tokens == ((1, 4, 7, 5),)


def test_raw_prompts_are_tokenized_as_they_stand(tokenizer: PreTrainedTokenizerFast) -> None:
    assert render(tokenizer, {"a": "w7 w8"}, template="raw").tokens == ((7, 8),)
    assert render(_adds_bos(tokenizer), {"a": "w7 w8"}, template="raw").tokens == ((1, 7, 8),)


def test_two_beginnings_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match=r"prompt 'b': has 2 beginning-of-sequence tokens '<s>'"):
        render(_adds_bos(tokenizer), {"a": "w7", "b": "<s> w8"}, template="raw")
    tokenizer.chat_template = "<s> " + CHAT
    with pytest.raises(DataError, match="has 2 beginning"):
        render(tokenizer, {"a": "w7 <s> w8"})


def test_a_template_that_writes_two_beginnings_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "<s> <s> " + CHAT
    with pytest.raises(DataError, match="has 2 beginning"):
        render(tokenizer, {"a": "w7"})


def test_a_template_that_leaves_the_beginning_out_of_some_prompts_is_refused(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = "{% if messages[0]['content'] != 'w7' %}<s> {% endif %}" + CHAT
    with pytest.raises(DataError, match="prompt 'b': does not begin with"):
        render(tokenizer, {"a": "w8", "b": "w7"})


def test_a_beginning_that_the_tokenizer_never_adds_is_not_demanded(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "<s> " + CHAT
    assert render(tokenizer, {"a": "w7"}, template="raw").tokens == ((7,),)
    assert render(tokenizer, {"a": "<s> w7"}, template="raw").tokens == ((1, 7),)
    with pytest.raises(DataError, match="has 2 beginning"):
        render(tokenizer, {"a": "<s> <s> w7"}, template="raw")


SMOLLM2 = ChatMl(
    bos="<|im_start|>",
    eos="<|im_end|>",
    pad="<|im_end|>",
    system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
)
QWEN = ChatMl(bos=None, eos="<|im_end|>", pad="<|endoftext|>", system="You are a helpful assistant.")
CHATML = ChatMl(bos="<s>", eos="<|im_end|>", pad="</s>", system=None, adds_bos=True)


@pytest.mark.parametrize("kind", [SMOLLM2, QWEN, CHATML], ids=["smollm2", "qwen", "chatml"])
def test_chatml_prompts_are_read_whatever_token_is_called_the_beginning(kind: ChatMl) -> None:
    tokenizer = chatml_tokenizer(kind)
    got = render(tokenizer, {"a": "hello", "b": "habari"})
    turn = tokenizer.convert_tokens_to_ids("<|im_start|>")
    turns = 3 if kind.system else 2
    assert [ids.count(turn) for ids in got.tokens] == [turns, turns]
    begin = tokenizer.bos_token_id if kind.adds_bos else turn
    assert all(ids[0] == begin and ids.count(begin) == (1 if kind.adds_bos else turns) for ids in got.tokens)
    named = render(tokenizer, {"a": "hello"}, system="Be brief.")
    assert named.tokens[0].count(turn) == 3


def test_a_prompt_that_writes_a_turn_marker_is_refused_where_it_is_the_beginning() -> None:
    with pytest.raises(DataError, match=r"prompt 'b': has 4 beginning-of-sequence tokens .*, 3 of them the template's"):
        render(chatml_tokenizer(SMOLLM2), {"a": "hello", "b": "<|im_start|>system hello"})


def test_raw_prompts_may_hold_the_turns_of_chatml() -> None:
    tokenizer = chatml_tokenizer(SMOLLM2)
    chat = render(tokenizer, {"a": "hello"})
    assert render(tokenizer, {"a": chat.texts[0]}, template="raw").tokens == chat.tokens
    assert render(tokenizer, {"a": "hello"}, template="raw").texts == ("hello",)


def test_answers_go_on_from_chatml_prompts() -> None:
    tokenizer = chatml_tokenizer(SMOLLM2)
    prompts = render(tokenizer, {"a": "hello"})
    ((whole, begins),) = continued(tokenizer, prompts, [(0, "habari")])
    assert whole[:begins] == prompts.tokens[0][:begins]
    with pytest.raises(DataError, match="has 4 beginning"):
        continued(tokenizer, prompts, [(0, "<|im_start|>user")])


def test_a_separator_that_serves_as_beginning_may_stand_inside(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.bos_token = tokenizer.eos_token  # as in GPT-2
    assert render(tokenizer, {"a": "w7 </s> w8"}, template="raw").tokens == ((7, 2, 8),)
    with pytest.raises(DataError, match="has 2 beginning"):
        render(tokenizer, {"a": "</s> </s> w8"}, template="raw")


def test_the_packaged_family_is_rendered_alike_as_chat_and_raw() -> None:
    world = World(0)
    tokenizer = make_tokenizer(world)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    word = world.vocabulary[-1]
    chat = render(tokenizer, {"a": word})
    raw = render(tokenizer, {"a": chat.texts[0]}, template="raw")
    assert chat.tokens == raw.tokens
    assert chat.tokens[0].count(tokenizer.bos_token_id) == 1
    assert chat.tokens[0][-1] == tokenizer.convert_tokens_to_ids(chat.texts[0].split()[-1])


def test_prompts_are_never_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="prompt 'long': has 4 tokens, 3 are allowed"):
        render(tokenizer, {"a": "w3", "long": "w3 w4 w5 w6"}, template="raw", max_tokens=3)
    tokenizer.model_max_length = 2
    kept = render(tokenizer, {"long": "a b c d", "short": "a"}, template="raw", max_tokens=3, leave_out=True)
    assert (kept.ids, len(kept.texts), len(kept.tokens)) == (("short",), 1, 1)
    with pytest.raises(DataError, match="has 3 tokens, 2 are allowed"):
        render(tokenizer, {"a": "w3 w4 w5"}, template="raw", max_tokens=100)


def test_bad_input(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no prompts"):
        render(tokenizer, {}, template="raw")
    with pytest.raises(DataError, match="prompt 'a': is empty"):
        render(tokenizer, {"a": "  "}, template="raw")
    with pytest.raises(RecipeError, match="no chat template"):
        render(tokenizer, {"a": "w3"})
    with pytest.raises(RecipeError, match="system message"):
        render(tokenizer, {"a": "w3"}, template="raw", system="w4")
    tokenizer.chat_template = "{{ raise_exception('no such role') }}"
    with pytest.raises(RecipeError, match="no such role"):
        render(tokenizer, {"a": "w3"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="tokenizer cannot be read"):
        load_tokenizer(tmp_path / "empty")


def test_padding_and_positions(tokenizer: PreTrainedTokenizerFast) -> None:
    got = render(tokenizer, {"a": "w7 w8 w9", "b": "w5"}, template="raw")
    left, right = got.batch([0, 1]), got.batch([0, 1], side="right")
    assert left.input_ids.tolist() == [[7, 8, 9], [0, 0, 5]]
    assert left.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert right.input_ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert right.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right.position_ids.tolist() == [[0, 1, 2], [0, 0, 0]]
    assert got.batch([1]).input_ids.tolist() == [[5]]


def test_hash_and_preview_tell_what_the_model_sees(tokenizer: PreTrainedTokenizerFast) -> None:
    first = render(tokenizer, {"a": "w7 w8", "b": "w9"}, template="raw")
    assert first.sha256 == render(tokenizer, {"a": "w7  w8", "b": "w9"}, template="raw").sha256  # the same tokens
    others = [{"a": "w7 w8", "b": "w10"}, {"a": "w7 w8", "c": "w9"}, {"b": "w9", "a": "w7 w8"}, {"a": "w7 w8 w9"}]
    assert len({first.sha256, *(render(tokenizer, other, template="raw").sha256 for other in others)}) == 5
    assert first.preview(1) == [{"id": "a", "text": "w7 w8", "tokens": [7, 8]}]
    assert first.select([1]).sha256 == render(tokenizer, {"b": "w9"}, template="raw").sha256


def test_the_tokenizer_hash_covers_template_and_vocabulary(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    one = {"a": "w7"}
    raw = render(tokenizer, one, template="raw").tokenizer
    render(tokenizer, {"a": "w7", "b": "w8 w9"}, template="raw")  # using a tokenizer does not change it
    assert render(tokenizer, one, template="raw").tokenizer == raw
    tokenizer.chat_template = CHAT
    assert render(tokenizer, one, template="raw").tokenizer == raw
    chat = render(tokenizer, one).tokenizer
    system = render(tokenizer, one, system="w6").tokenizer
    tokenizer.chat_template = CHAT + " w6"
    other_template = render(tokenizer, one).tokenizer
    write_tokenizer(tmp_path, 21)
    other_words = render(load_tokenizer(tmp_path), one, template="raw").tokenizer
    assert len({raw, chat, system, other_template, other_words}) == 5


@pytest.mark.hostile("config")
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"])
def test_files_of_absurd_size_or_without_an_end_are_not_read(tmp_path: Path, name: str) -> None:
    write_tokenizer(tmp_path, 20)
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 2**35)
    with pytest.raises(CheckpointError, match=rf"{name}: is larger than 64000000 bytes"):
        load_tokenizer(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a device or a broken link"):
        load_tokenizer(tmp_path)
