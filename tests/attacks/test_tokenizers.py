"""Tokenizers that attack: their rules are of whoever published the model, and read every prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from polysafe.confined import Confined
from polysafe.errors import CheckpointError
from polysafe.probe.chat import rules
from polysafe.probe.render import load_tokenizer, render
from tests.chatml import ChatMl, chatml_tokenizer


def split(expression: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


GROWTH = {"type": "Sequence", "normalizers": [replace("a", "a" * 1000)] * 5}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an expression that does not end": ({"pre_tokenizer": split("(a+)+$")}, "retry-limit|does not end"),
    "a line that becomes terabytes": ({"normalizer": GROWTH}, "memory"),
    "decoding that grows": ({"decoder": {**replace("a", "a" * 1000)}}, "rules that no model needs"),
    "decoding by an expression": ({"decoder": {**replace("a", ""), "pattern": {"Regex": "(a+)+$"}}}, "rules that no"),
    "a hundred thousand rules": ({"decoder": {"type": "Sequence", "decoders": [{"type": "Fuse"}] * 100_000}}, "rules"),
    "megabytes around every text": (
        {"post_processor": {"type": "BertProcessing", "sep": ["s" * 2_000_000, 1], "cls": ["c", 2]}},
        "rules that no model needs",
    ),
}
HONEST = {
    "GPT-2": split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    "Llama 3": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    ),
    "SentencePiece": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    "none": None,
}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same bounds, but fewer seconds to wait in a test."""
    trying = Confined("polysafe.probe.chat.splitter:tried", "the tokenizer's rule for splitting texts", seconds=3)
    monkeypatch.setattr(rules, "_TRY", trying)
    yield
    trying.close()


def folder_of(folder: Path, **changed: Any) -> Path:
    """A model folder whose tokenizer has other rules."""
    chatml_tokenizer(ChatMl(None, "<|im_end|>", "<|endoftext|>", None)).save_pretrained(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return folder


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.usefixtures("hurried")
def test_rules_of_any_time_or_memory_are_refused(case: str, tmp_path: Path) -> None:
    changed, problem = REFUSED[case]
    with pytest.raises(CheckpointError, match=problem):
        load_tokenizer(folder_of(tmp_path, **changed))


@pytest.mark.parametrize("case", HONEST)
def test_the_rules_of_known_models_need_no_other_process(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "_TRY", None)
    tokenizer = load_tokenizer(folder_of(tmp_path, pre_tokenizer=HONEST[case]))
    assert render(tokenizer, {"a": "one two"}).tokens


@pytest.mark.usefixtures("hurried")
def test_rules_that_are_not_known_are_tried_on_every_text(tmp_path: Path) -> None:
    """The text that an expression takes too long for need not be one that anybody thought of."""
    plain = load_tokenizer(folder_of(tmp_path / "plain"))
    tokenizer = load_tokenizer(folder_of(tmp_path / "odd", pre_tokenizer=split("(q+)+$")))
    prompts = {"a": "one two"}
    assert render(tokenizer, prompts).texts == render(plain, prompts).texts
    with pytest.raises(CheckpointError, match="the tokenizer of this model cannot be used"):
        render(tokenizer, {"a": "q" * 64 + "!"})
    assert render(tokenizer, prompts).tokens
