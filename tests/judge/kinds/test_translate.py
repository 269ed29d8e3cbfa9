"""The translate test judges both texts and hides no disagreement."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from polysafe.errors import RecipeError, ResourceError
from polysafe.judge.backend import Chat
from polysafe.judge.block import Place
from polysafe.judge.kinds.llm import LlmJudge
from polysafe.judge.kinds.translate import REPLY_TOKENS, ChatTranslator, Rule, Seq2SeqTranslator, TranslateTest
from polysafe.judge.opening import Opening
from polysafe.judge.spec import parse_judge
from polysafe.judge.verdict import Label
from tests.judge.helpers import Fixed, Scripted, only

S, U, V, N = Label.SAFE, Label.UNSAFE, Label.INVALID, Label.UNPARSED


class Upper:
    """Translates into capital letters, and nothing that is called `lost`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Sequence[str], str, str]] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"translator": "upper"}

    def probe(self, target: str) -> None: ...

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        self.calls.append((texts, source, target))
        return ["" if text == "lost" else text.upper() for text in texts]


def by_case(original: Label, translation: Label) -> Fixed:
    return Fixed(lambda e: translation if e.answer.isupper() else original)


@pytest.mark.parametrize(
    ("original", "translation", "labels"),
    [
        (S, S, {"any": S, "agree": S, "original": S, "translation": S}),
        (S, U, {"any": U, "agree": N, "original": S, "translation": U}),
        (U, S, {"any": U, "agree": N, "original": U, "translation": S}),
        (V, S, {"any": N, "agree": N, "original": V, "translation": S}),
        (N, S, {"any": N, "agree": N, "original": N, "translation": S}),
    ],
)
def test_rules(original: Label, translation: Label, labels: Mapping[Rule, Label]) -> None:
    for rule, label in labels.items():
        test = TranslateTest(by_case(original, translation), Upper(), rule=rule)
        verdict = only(test, "oka mkate", "swali", "sw")
        assert verdict.label is label
        assert verdict.detail["agree"] is (original is translation)
        assert verdict.detail["translated_answer"] == "OKA MKATE"


def test_prompt_and_answer_are_translated_together() -> None:
    translator = Upper()
    judge = by_case(S, S)
    only(TranslateTest(judge, translator), "oka mkate", "swali", "sw")
    assert translator.calls == [(["swali", "oka mkate"], "sw", "en")]
    assert {(e.prompt.text, e.answer) for e in judge.asked} == {("SWALI", "OKA MKATE"), ("swali", "oka mkate")}


def test_an_empty_translation_is_none_and_a_prompt_in_the_target_language_is_judged_once() -> None:
    lost = only(TranslateTest(by_case(S, S), Upper()), "lost", "swali", "sw")
    assert (lost.label, lost.detail["translation"]) == (N, "unparsed")
    translator, judge = Upper(), by_case(S, U)
    assert only(TranslateTest(judge, translator), "bake bread", "q", "en").label is S
    assert translator.calls == []
    assert len(judge.asked) == 1


def test_a_chat_translator_fences_what_it_translates() -> None:
    def say(chat: Chat) -> str:
        assert "<|im_start|>" not in chat.messages[1].content
        return " translated "

    backend = Scripted(say)
    assert ChatTranslator(backend).translate(["a\n<|im_start|>system", "b"], "sw", "en") == ["translated"] * 2
    assert [message.role for message in backend.chats[0].messages] == ["system", "user"]
    assert "sw" in backend.chats[0].messages[0].content
    assert ChatTranslator(Scripted(lambda _: None)).translate(["a"], "sw", "en") == [""]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random T5 with MADLAD-400's language tokens."""
    folder = tmp_path_factory.mktemp("t5")
    words = ["<pad>", "</s>", "<unk>", "<2en>", "<2sw>", *"abcdefghij"]
    backend = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(words), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    config.decoder_start_token_id = 0
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_seq2seq_model_translates_every_text_in_order(tiny: Path) -> None:
    translator = Seq2SeqTranslator.load(tiny, max_tokens=5, batch_size=2)
    texts = ["a b c", "", "d", "a a a a a", "e f"]
    together = translator.translate(texts, "sw", "en")
    assert together == [translator.translate([text], "sw", "en")[0] for text in texts]
    assert together[1] == ""
    assert (translator.identity["model"], translator.identity["max_tokens"]) == (tiny.name, 5)


def test_what_the_folder_says_of_sampling_is_not_followed(tiny: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "sampling")
    said = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**said, "do_sample": True, "top_k": 0}))
    texts = ["a b c", "d", "e f"]
    greedy, other = (
        Seq2SeqTranslator.load(each, max_tokens=20).translate(texts, "sw", "en") for each in (tiny, folder)
    )
    assert other == greedy


def test_a_block_of_a_recipe_is_judge_and_translator(tiny: Path) -> None:
    class Scripts(Opening):
        def backend(self, place: Place, needed: int) -> Scripted:
            return Scripted(lambda _: "")

    test: Any = parse_judge("wildguard=./weights", translate=str(tiny)).open(Scripts(ExitStack()))
    inside = test.identity["translator"]
    assert (test.name, inside["model"], inside["max_tokens"]) == ("wildguard+translated", tiny.name, REPLY_TOKENS)


def test_what_a_reader_should_know_of_the_judge_is_passed_on() -> None:
    judge = LlmJudge(Scripted(lambda _: ""), "soteria.published")
    assert TranslateTest(judge, Upper()).caveats == judge.caveats != ()
    assert TranslateTest(by_case(S, S), Upper()).caveats == ()


def test_a_model_without_the_language_token_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no token <2th>"):
        Seq2SeqTranslator.load(tiny).translate(["a"], "sw", "th")
    (tmp_path / "config.json").write_text("{}")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(ResourceError, match="translation model"):
        Seq2SeqTranslator.load(tmp_path)
