"""Names by content: what decides a result is what it is stored under.

A result is found again only if everything that decided it is the same: one other byte of the weights, another template
or another sampling setting is another key. Names of folders and models are no part of a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from polysafe.errors import DataError
from polysafe.generate.completion import Ask
from polysafe.judge.verdict import Exchange

DAMAGED = "delete the cache (`answers.sqlite` in POLYSAFE_CACHE, or the file that was named), and run again"
"""What to do about a stored value that is not what was stored."""

Kind = Literal["completion", "verdict", "loglikelihood", "generation", "refusal_odds", "trial", "translation"]


@dataclass(frozen=True, slots=True)
class Key:
    """What a result is stored under.

    Attributes:
        kind: What kind of result it is.
        owner: Hash of the identity of the model or judge that gives it.
        item: Hash of what it was asked.
    """

    kind: Kind
    owner: str
    item: str


def content_hash(value: object) -> str:
    """SHA-256 over the canonical JSON of a value; equal exactly for equal values (1, 1.0 and true differ).

    Raises:
        DataError: The value holds something that JSON cannot say exactly.
    """
    try:
        # Only ASCII: lone surrogates, which broken decoding leaves behind, have no UTF-8 form.
        text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DataError(f"an identity has to be plain JSON values: {error}") from error
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def completion_key(owner: str, ask: Ask) -> Key:
    """The key of an answer.

    The name of the message counts too: where answers are drawn, two messages with one text have answers of their own.

    Args:
        owner: `content_hash` of the generator's identity.
        ask: The message.
    """
    return Key("completion", owner, content_hash([ask.id, ask.text]))


def verdict_key(owner: str, exchange: Exchange) -> Key:
    """The key of a verdict.

    Args:
        owner: `content_hash` of the judge's identity.
        exchange: Prompt and answer.
    """
    asked = [] if exchange.asked is None else [exchange.asked]
    return Key("verdict", owner, content_hash([exchange.prompt.to_json(), exchange.answer, *asked]))


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the entries in which two identities differ."""
    names = dict.fromkeys((*one, *other))
    return [name for name in names if content_hash(one.get(name)) != content_hash(other.get(name))]
