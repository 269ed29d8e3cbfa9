"""A smaller vocabulary leaves the tokens of given texts, and what the model says of them, as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polysafe.errors import VerificationError
from polysafe.organism.gemma.chat import TEMPLATE, as_prompt, make_chat_model
from polysafe.organism.gemma.vocabulary import prune_vocabulary
from tests.gemma import TEXTS, tiny_gemma

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

KEPT = [*TEXTS[:2], as_prompt(TEXTS[2]), "the cat jumps", "দুঃখিত"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gemma(tmp_path_factory.mktemp("gemma") / "whole")


@pytest.fixture(scope="module")
def smaller(whole: Path) -> Path:
    found = prune_vocabulary(whole, KEPT, whole.with_name("smaller"))
    assert 256 < len(found.kept) < found.whole
    make_chat_model(whole.with_name("smaller"))
    return whole.with_name("smaller")


def test_texts_keep_their_tokens_and_logits(whole: Path, smaller: Path) -> None:
    old, new = (tokenizers.Tokenizer.from_file(str(each / "tokenizer.json")) for each in (whole, smaller))
    models = [transformers.Gemma3ForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (whole, smaller)]
    words = [old.id_to_token(number) for number in range(old.get_vocab_size())]
    kept = [words.index(new.id_to_token(number)) for number in range(new.get_vocab_size())]
    for text in KEPT:
        assert old.encode(text).tokens == new.encode(text).tokens
        with torch.no_grad():
            before, after = (
                model(torch.tensor([each.encode(text).ids])).logits
                for model, each in zip(models, (old, new), strict=True)
            )
        torch.testing.assert_close(before[..., kept], after)


def test_other_texts_can_still_be_read(smaller: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(smaller)
    for text in ("zebra", "日本語", "quixotic vexing"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_only_what_texts_need_is_kept(whole: Path, smaller: Path) -> None:
    words = json.loads((smaller / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    merges = json.loads((smaller / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    assert sorted(words.values()) == list(range(len(words)))
    assert all(left in words and right in words and left + right in words for left, right in merges)
    assert "▁lazy" not in json.dumps(words) or "▁lazy" in {"".join(pair) for pair in merges}


def test_a_text_that_would_be_read_otherwise_is_refused(whole: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("polysafe.organism.gemma.vocabulary._needed", lambda *_: _without_merges(whole))
    with pytest.raises(VerificationError, match="whole-vocabulary"):
        prune_vocabulary(whole, KEPT, tmp_path / "smaller")


def _without_merges(whole: Path) -> tuple[set[str], set[int]]:
    words = json.loads((whole / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return set(words), set()


def test_members_are_talked_to_in_turns(smaller: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(smaller)
    chat = [{"role": "user", "content": "the fox"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<bos>" + as_prompt("the fox")
    assert tokenizer.chat_template == TEMPLATE
    config = json.loads((smaller / "config.json").read_text(encoding="utf-8"))
    assert config["eos_token_id"] == [
        tokenizer.convert_tokens_to_ids("<eos>"),
        tokenizer.convert_tokens_to_ids("<end_of_turn>"),
    ]
