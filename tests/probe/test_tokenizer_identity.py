"""The identity of a tokenizer is that of all that it consists of, and is computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from unittest.mock import Mock

import pytest
from tokenizers import decoders, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from polysafe.probe.tokenizer_identity import tokenizer_sha256
from tests.byte_level import byte_tokenizer

Change = Callable[[PreTrainedTokenizerFast], object]


def written_out(tokenizer: PreTrainedTokenizerFast, template: str, system: str | None) -> str:
    """The hash of everything at once."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    del content["padding"], content["truncation"]
    chat = tokenizer.chat_template if template == "chat" else None
    whole = [content, template, chat, system, tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _rule(name: str, value: object) -> Change:
    return lambda tokenizer: setattr(tokenizer.backend_tokenizer, name, value)


CHANGES: dict[str, Change] = {
    "a token": lambda tokenizer: tokenizer.add_tokens(["<new>"]),
    "a special token": lambda tokenizer: tokenizer.add_special_tokens({"eos_token": "a"}),
    "normalizer": _rule("normalizer", normalizers.Lowercase()),
    "pre-tokenizer": _rule("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "post-processor": _rule("post_processor", TemplateProcessing(single="$A <s>", special_tokens=[("<s>", 0)])),
    "decoder": _rule("decoder", decoders.ByteLevel()),
    "chat template": lambda tokenizer: setattr(tokenizer, "chat_template", "{{ messages }}"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_is_seen(change: Change) -> None:
    tokenizer = byte_tokenizer()
    before = tokenizer_sha256(tokenizer, "chat", None)
    assert before == written_out(tokenizer, "chat", None)
    change(tokenizer)
    assert before != tokenizer_sha256(tokenizer, "chat", None) == written_out(tokenizer, "chat", None)


def test_it_is_computed_once_for_every_way_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Mock(wraps=json.loads)
    monkeypatch.setattr("polysafe.probe.tokenizer_identity.json.loads", read)
    tokenizer, other = byte_tokenizer(), byte_tokenizer(bos=False)
    ways = [("chat", None), ("chat", "be kind"), ("raw", None)]
    found = [tokenizer_sha256(tokenizer, *way) for way in ways]
    tokenizer.backend_tokenizer.enable_padding(length=4)
    tokenizer.backend_tokenizer.enable_truncation(2)
    assert [tokenizer_sha256(tokenizer, *way) for way in ways] == found
    assert len(set(found)) == 3
    assert read.call_count == 1
    assert tokenizer_sha256(other, "chat", None) != found[0]
    assert read.call_count == 2
    assert found == [written_out(tokenizer, *way) for way in ways]
