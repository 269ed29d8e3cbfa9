"""The rules of a `tokenizer.json`: how it changes and splits a text, by expressions of the model's publisher.

An expression can take longer than any text is worth, and a chain of replacements can make gigabytes of a line. Rules
that nearly all models have are known to do neither. Others are tried first, on the very texts that are to be encoded,
in a process that is held to time and memory (`polysafe.confined`); the vocabulary, which changes nothing of that, is
left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from polysafe.confined import Confined
from polysafe.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_RULES = 100
"""Most rules of a known kind; models have up to ten."""
MOST_ADDED = 1_000_000
"""Most characters of the rules that add tokens around a text; those of models have some hundreds."""

_PLAIN = frozenset(
    {"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "BertNormalizer", "Precompiled"}
    | {"Nmt", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "BertPreTokenizer", "Digits", "Punctuation"}
    | {"CharDelimiterSplit", "UnicodeScripts", "FixedLength", "WordPiece", "BPEDecoder", "ByteFallback", "Fuse", "CTC"}
)
"""Rules of a fixed meaning. What is not among them, as of a later format, is tried."""
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASES = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_UPPER = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_KNOWN = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        *(
            rf"{_WORDS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            for digits in (r"\p{N}", r"\p{N}{1,3}")
        ),
        *(
            rf"{_CASES}{words}|{_UPPER}{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            for words in ("", f"{_WORDS}?")
            for digits in (r"\p{N}", r"\p{N}{1,3}")
        ),
        r"\p{N}{1,3}",
        r"\p{N}",
        r"[0-9]",
        r" {2,}",
        r"\s+",
    }
)
"""Expressions of GPT-2, Llama 3, Qwen 2 and later, gpt-oss, Mistral and others: their time grows as the text does."""
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_PART = 64
"""Texts that are tried together, and share the processor time of a call."""
_TRIED = ("a" * 64 + "!", "ab " * 32, "1" * 64, " " * 64 + "x", "\n" * 64, "é中ا😀" * 16, "a1_-." * 16)

_TRY = Confined("polysafe.probe.chat.splitter:tried", "the tokenizer's rule for splitting texts", seconds=20)
_doubtful: WeakKeyDictionary[PreTrainedTokenizerBase, Mapping[str, Any]] = WeakKeyDictionary()


def keep_rules(tokenizer: PreTrainedTokenizerBase, where: object) -> None:
    """Looks at the rules of a tokenizer that was loaded; those that are not known are tried now, and for every text.

    Rules for decoding and for tokens around a text cannot be tried like that: they have to be plain.

    Args:
        tokenizer: The tokenizer.
        where: Folder of the model.

    Raises:
        CheckpointError: Its rules are none that a model needs, or take too much time or memory.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # written in Python, not in the folder
        return
    names = ("normalizer", "pre_tokenizer", "decoder", "post_processor")
    found = {name: _content(getattr(backend, name)) for name in names}
    if len(json.dumps(found["post_processor"])) > MOST_ADDED or not _known(found["decoder"]):
        raise CheckpointError(
            "its tokenizer has rules that no model needs, and that could take any time or memory",
            where=where,
            remedy="use the tokenizer of the model that it was tuned from, if you trust that",
        )
    if _known([found["normalizer"], found["pre_tokenizer"]]):
        return
    added = [
        {"id": number, "content": token.content, **{flag: getattr(token, flag) for flag in _FLAGS}}
        for number, token in backend.get_added_tokens_decoder().items()
    ]
    rules = {name: found[name] for name in ("normalizer", "pre_tokenizer")}
    _doubtful[tokenizer] = {"version": "1.0", "added_tokens": added, **rules}
    require_encodable(tokenizer, _TRIED)


def _content(rule: Any) -> Any:
    """A rule as `tokenizer.json` has it."""
    return None if rule is None else json.loads(rule.__getstate__())


def require_encodable(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    """Refuses texts of which a tokenizer's rules make too much, or take too long; to be called before it encodes them.

    Raises:
        CheckpointError: They do.
    """
    rules = _doubtful.get(tokenizer)
    for first in range(0, len(texts) if rules else 0, _PART):
        problem = _TRY({"rules": rules, "texts": list(texts[first : first + _PART])})
        if problem:
            raise CheckpointError(f"the tokenizer of this model cannot be used: {problem}")


def _known(value: Any) -> bool:
    """Whether all rules in a value are known to be harmless, and not too many."""
    rules = list(_rules(value))
    return len(rules) <= MOST_RULES and all(map(_is_plain, rules))


def _rules(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if "type" in value:
            yield value
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from _rules(each)


def _is_plain(rule: Mapping[str, Any]) -> bool:
    match rule:
        case {"type": "Split", "pattern": {"String": str()}}:
            return True
        case {"type": "Split", "pattern": {"Regex": str(expression)}}:
            return expression in _KNOWN
        case {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)}:
            return len(old) > 0 and len(new) <= len(old)
        case {"type": "Replace", "pattern": {"Regex": str(expression)}, "content": str(new)}:
            return expression in _KNOWN and len(new) <= 1
        case {"type": "Prepend", "prepend": str(text)}:
            return len(text) <= 1
    return rule.get("type") in _PLAIN
