"""Texts that never leave this process: the keys of servers.

A server can say back what it was sent, in an error or in an answer. Whoever reads a key tells it here, and whatever
shows or keeps a text from outside hides all keys in it first.
"""

from __future__ import annotations

import base64
import json
import re
from threading import Lock
from urllib.parse import quote, quote_plus

HIDDEN = "[a key, not shown]"
"""Stands where a key was."""
LONG = 8
"""Characters from which on a key is no word that a model could say by itself (`EMPTY`, as some servers want)."""

_lock = Lock()
_spellings: dict[str, re.Pattern[str]] = {}


def keep_secret(key: str) -> None:
    """Makes `hide` know a key, for as long as this process lives."""
    if not key:
        return
    raw = key.encode("utf-8", "surrogatepass")
    forms = {key, quote(key, safe="", errors="replace"), quote_plus(key, errors="replace"), json.dumps(key)[1:-1]}
    # Three bytes are four characters: what stands before the key (`user:`) decides which of three spellings it has.
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + raw).decode().rstrip("=")
        whole = coded[-(-before * 4 // 3) : len(coded) - bool((before + len(raw)) % 3)]
        forms |= {whole, whole.replace("+", "-").replace("/", "_")} if len(whole) >= LONG else set()
    alternatives = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    # A short key that is part of a word is that word.
    bounded = alternatives if len(key) >= LONG else rf"(?<!\w)(?:{alternatives})(?!\w)"
    with _lock:
        _spellings[key] = re.compile(bounded)


def hide(text: str, *, shortest: int = 1) -> str:
    """The text with every key in it replaced, however it is spelt: as it is, in a URL, in JSON, in base64.

    Args:
        text: The text.
        shortest: Fewest characters of a key that is replaced; `LONG` for answers of models, which short ones may be
            words of.
    """
    with _lock:
        known = [pattern for key, pattern in _spellings.items() if len(key) >= shortest]
    for pattern in known:
        text = pattern.sub(HIDDEN, text)
    return text
