"""Cuts a vocabulary down to the tokens that given texts use.

Two thirds of Gemma 3 270M are vectors of 262 thousand tokens, most of them in languages that the family never speaks.
Every given text keeps exactly the tokens that it had (checked here): byte-pair merges are done in the order of their
rank, and all merges that make a used token are kept. Other texts are still readable, in smaller pieces.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.errors import VerificationError
from polysafe.files.atomic import write_json_atomic
from polysafe.progress import Meter, counted

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EMBEDDINGS = "model.embed_tokens.weight"
_CHUNK = 2000


@dataclass(frozen=True)
class Pruned:
    """What became of a vocabulary.

    Attributes:
        kept: Old ids of the kept tokens, in their new order.
        whole: Tokens that there were.
        texts: Texts that were compared.
    """

    kept: tuple[int, ...]
    whole: int
    texts: int


def prune_vocabulary(model: Path, texts: Sequence[str], output: Path) -> Pruned:
    """Writes a model with the vocabulary that texts need.

    Args:
        model: Folder of a model with tied embeddings in one file, and a byte-pair tokenizer with byte tokens.
        texts: Texts whose tokens stay the same, as they stand in the chat template and without.
        output: Folder to write: weights, `config.json` and `tokenizer.json`.

    Raises:
        VerificationError: A text got other tokens.
    """
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer

    tell = counted("cutting the vocabulary", 2 * len(texts))
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    described = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: Mapping[str, int] = described["model"]["vocab"]
    words = {number: word for word, number in vocabulary.items()}
    used = {words[number] for ids in _encoded(tokenizer, texts, tell) for number in ids if number in words}
    kept, merges = _needed(used, described, _always(described))
    order = sorted(vocabulary[word] for word in kept)
    fresh = {words[old]: new for new, old in enumerate(order)}
    output.mkdir(parents=True, exist_ok=True)
    (output / "tokenizer.json").write_text(json.dumps(_smaller(described, fresh, merges), ensure_ascii=False), "utf-8")
    _require_same(tokenizer, Tokenizer.from_file(str(output / "tokenizer.json")), order, texts, tell)
    state = load_file(model / "model.safetensors")
    state[EMBEDDINGS] = state[EMBEDDINGS][order].contiguous()
    save_file(state, output / "model.safetensors", {"format": "pt"})
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] = len(order)
    config.update({f"{name}_token_id": fresh[f"<{name}>"] for name in ("bos", "eos", "pad")})
    write_json_atomic(output / "config.json", config)
    return Pruned(tuple(order), len(vocabulary), len(texts))


def _always(described: Mapping[str, Any]) -> set[str]:
    """Tokens that are kept whatever the texts: bytes, and those that mark beginnings, ends and turns."""
    marks = {"<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"}
    known = described["model"]["vocab"]
    return {word for word in (*marks, *(f"<0x{byte:02X}>" for byte in range(256))) if word in known}


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], tell: Meter) -> Iterator[list[int]]:
    for at in range(0, len(texts), _CHUNK):
        part = list(texts[at : at + _CHUNK])
        yield from (found.ids for found in tokenizer.encode_batch(part))
        tell(len(part))


def _needed(used: set[str], described: Mapping[str, Any], kept: set[str]) -> tuple[set[str], set[int]]:
    """Tokens and places of merges that make the used tokens out of single characters."""
    vocabulary = described["model"]["vocab"]
    rank = {tuple(pair): place for place, pair in enumerate(described["model"]["merges"])}
    whole = {token["content"] for token in described["added_tokens"]}
    merges: set[int] = set()
    for word in used:
        kept.add(word)
        if word in whole or (word.startswith("<0x") and word.endswith(">")):
            continue
        pieces = list(word)
        kept.update(piece for piece in pieces if piece in vocabulary)
        while (best := _first_merge(pieces, rank)) is not None:
            place, at = best
            merges.add(place)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
            kept.add(pieces[at])
    return kept, merges


def _first_merge(pieces: Sequence[str], rank: Mapping[tuple[str, ...], int]) -> tuple[int, int] | None:
    """(Rank, position) of the merge that comes first."""
    pairs = ((rank.get((pieces[at], pieces[at + 1])), at) for at in range(len(pieces) - 1))
    return min(((place, at) for place, at in pairs if place is not None), default=None)


def _smaller(described: dict[str, Any], fresh: Mapping[str, int], merges: set[int]) -> dict[str, Any]:
    """The description of the tokenizer with the kept tokens."""
    model = {
        **described["model"],
        "vocab": dict(fresh),
        "merges": [pair for place, pair in enumerate(described["model"]["merges"]) if place in merges],
    }
    added = [
        {**token, "id": fresh[token["content"]]} for token in described["added_tokens"] if token["content"] in fresh
    ]
    smaller = {**described, "model": model, "added_tokens": added}
    for token in (smaller.get("post_processor") or {}).get("special_tokens", {}).values():
        token["ids"] = [fresh[word] for word in token["tokens"]]
    return smaller


def _require_same(old: Tokenizer, new: Tokenizer, order: Sequence[int], texts: Sequence[str], tell: Meter) -> None:
    for at in range(0, len(texts), _CHUNK):
        part = list(texts[at : at + _CHUNK])
        for before, after in zip(old.encode_batch(part), new.encode_batch(part), strict=True):
            if before.ids != [order[number] for number in after.ids]:
                raise VerificationError(
                    "a text has other tokens in the smaller vocabulary",
                    remedy="keep the whole vocabulary: --whole-vocabulary",
                )
        tell(len(part))
