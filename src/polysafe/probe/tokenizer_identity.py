"""Identity of a tokenizer, hashed once as long as it stays the same: a vocabulary of 262,144 entries takes seconds."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from hashlib import _Hash

    from transformers import PreTrainedTokenizerBase

_STATE = {"padding", "truncation"}
"""Settings of the last call, not of the tokenizer."""
_BEGUN: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, _Hash]] = WeakKeyDictionary()
"""Tokenizer -> what it was when it was hashed, and the hash of its vocabulary and rules."""


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase, template: str, system: str | None) -> str:
    """Identity of a tokenizer and the way it is used: vocabulary, rules, special tokens, template, system message."""
    chat = tokenizer.chat_template if template == "chat" else None
    digest = _begun(tokenizer).copy()
    digest.update(b"," + _json([template, chat, system, tokenizer.special_tokens_map])[1:])
    return digest.hexdigest()


def _begun(tokenizer: PreTrainedTokenizerBase) -> _Hash:
    """The hash of a list that begins with vocabulary and rules, up to there."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hashlib.sha256(b"[" + _json(tokenizer.get_vocab()))
    now = _told_apart_by(backend)
    before, digest = _BEGUN.get(tokenizer, (None, hashlib.sha256()))
    if before != now:
        content = {key: value for key, value in json.loads(backend.to_str()).items() if key not in _STATE}
        digest = hashlib.sha256(b"[" + _json(content))
        _BEGUN[tokenizer] = now, digest
    return digest


def _told_apart_by(backend: Any) -> object:
    """What changes when tokens are added to a tokenizer or a rule of it is replaced."""
    rules = (backend.normalizer, backend.pre_tokenizer, backend.post_processor, backend.decoder)
    added = repr(backend.get_added_tokens_decoder())
    return backend.get_vocab_size(), added, tuple(None if rule is None else rule.__getstate__() for rule in rules)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str).encode()
