"""Texts split by the rules of somebody else: runs in the process of `polysafe.confined`, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

_EMPTY = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}


def tried(asked: Mapping[str, Any]) -> str:
    """Encodes texts with no vocabulary, and says why that cannot be done, if so.

    Args:
        asked: `rules`, entries of a `tokenizer.json`, and `texts`.
    """
    try:
        _tokenizer(json.dumps(asked["rules"])).encode_batch(asked["texts"])
    except BaseException as error:  # noqa: BLE001  (what Rust panics with is no `Exception`)
        return str(error)[:1000] or type(error).__name__
    return ""


@lru_cache(maxsize=2)
def _tokenizer(rules: str) -> Tokenizer:
    plain = {"truncation": None, "padding": None, "post_processor": None, "decoder": None, "model": _EMPTY}
    return Tokenizer.from_str(json.dumps({**json.loads(rules), **plain}))


tried({"rules": {"version": "1.0", "added_tokens": []}, "texts": ["a"]})
