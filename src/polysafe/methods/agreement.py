"""Whether models fit together: the checks that come before any tensor is read.

Two models agree when they have the same layers, the same tensors and the same shapes, both or neither have a head of
their own, and their configs say the same of what is computed with the tensors. Their vocabularies are a question
apart: a language expert with added tokens still has body layers that can be swapped, so the vocabulary is compared
separately and what follows is the method's choice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from polysafe.checkpoint.dtypes import EDITABLE
from polysafe.checkpoint.header import load_json
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.roles import Kind
from polysafe.checkpoint.source import MAX_TOKENIZER, bytes_up_to
from polysafe.errors import CheckpointError, MismatchError, RecipeError

_SHOWN = 3
_VOCABULARY = frozenset({Kind.EMBEDDING, Kind.HEAD})
# Tensors of the same shapes mean something else where one of these differs.
_COMPUTED = (
    *("num_attention_heads", "num_key_value_heads", "head_dim", "query_pre_attn_scalar", "partial_rotary_factor"),
    *("hidden_act", "hidden_activation", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
)
_ALIASES = {"type": "rope_type"}


def require_agreement(sources: Sequence[Source]) -> None:
    """Refuses sources that are not models of one architecture; rows of embedding and head may differ.

    Raises:
        MismatchError: Naming the layer counts, the tied flags, or the first tensors and settings that differ.
    """
    first, *others = sources
    for other in others:
        _require_same_layers(first, other)
        _require_same_tying(first, other)
        differences = chain(
            _missing(first, other), _missing(other, first), _shapes(first, other), _settings(first, other)
        )
        shown = list(islice(differences, _SHOWN))
        if shown:
            raise MismatchError(
                f"{first.name!r} and {other.name!r} are not models of one architecture: {'; '.join(shown)}",
                where=other.checkpoint.root,
                remedy="use models that were fine-tuned from the same base without changing its structure",
            )


def require_layers(source: Source, layers: int | None) -> None:
    """Refuses a model of another number of layers than the options say; nothing where they say none.

    Raises:
        RecipeError: It has another number.
    """
    there = source.architecture.num_layers
    if layers not in {None, there}:
        raise RecipeError(
            f"`layers: {layers}`, but {source.name!r} has {there}",
            where=source.checkpoint.root,
            remedy="correct the number, or leave it out to take all layers",
        )


def vocabulary_conflict(sources: Sequence[Source]) -> str | None:
    """How the vocabularies of the sources differ, in words; None when an id means the same token in all.

    Tokens that only one of them has do not conflict as long as the embeddings have the same shape.
    """
    first, *others = sources
    for other in others:
        for name in _vocabulary_tensors(first):
            mine, theirs = first.reader.spec(name).shape, other.reader.spec(name).shape
            if mine != theirs:
                return f"{name} is {_shape(mine)} in {first.name!r} and {_shape(theirs)} in {other.name!r}"
        if conflict := _token_conflict(first, other):
            return conflict
    return None


def same_vocabulary_shape(sources: Sequence[Source]) -> bool:
    """Whether embedding and head have the same shape in all sources, so that they can be mixed at all."""
    first, *others = sources
    return all(
        first.reader.spec(name).shape == other.reader.spec(name).shape
        for other in others
        for name in _vocabulary_tensors(first)
    )


def storage_notes(sources: Sequence[Source]) -> Iterator[str]:
    """Tells mixed storage types, which decide where the one rounding happens."""
    types = {source.name: _float_types(source) for source in sources}
    if len(set(types.values())) > 1:
        listed = ", ".join(f"{name} {kind}" for name, kind in types.items())
        yield f"storage types differ ({listed}); sums are rounded once, to the type of the result"


def architecture_notes(sources: Sequence[Source]) -> Iterator[str]:
    """What reading the headers brought to light, with the name of the source unless it holds for all."""
    holders: dict[str, list[str]] = {}
    for source in sources:
        for note in source.architecture.notes:
            holders.setdefault(note, []).append(source.name)
    for note, names in holders.items():
        yield note if len(names) == len(sources) else f"{', '.join(names)}: {note}"


def shortened(names: Sequence[str], shown: int = _SHOWN) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _require_same_layers(first: Source, other: Source) -> None:
    mine, theirs = first.architecture.num_layers, other.architecture.num_layers
    if mine != theirs:
        raise MismatchError(
            f"{first.name!r} has {mine} layers, {other.name!r} has {theirs}",
            where=other.checkpoint.root,
            remedy="use models that were fine-tuned from the same base",
        )


def _require_same_tying(first: Source, other: Source) -> None:
    if first.architecture.tied == other.architecture.tied:
        return
    tied, untied = (first, other) if first.architecture.tied else (other, first)
    raise MismatchError(
        f"the head of {tied.name!r} is tied to its embedding, {untied.name!r} has a head of its own",
        where=other.checkpoint.root,
        remedy="save both with the same `tie_word_embeddings`",
    )


def _missing(having: Source, lacking: Source) -> Iterator[str]:
    known = lacking.architecture.roles
    for name, role in having.architecture.roles.items():
        if name not in known and role.kind is not Kind.BUFFER:
            yield f"{name} is in {having.name!r} only"


def _shapes(first: Source, other: Source) -> Iterator[str]:
    theirs_has = other.architecture.roles
    for name, role in first.architecture.roles.items():
        if name not in theirs_has or role.kind is Kind.BUFFER:
            continue
        mine, theirs = first.reader.spec(name).shape, other.reader.spec(name).shape
        rows_may_differ = role.kind in _VOCABULARY and mine[1:] == theirs[1:]
        if mine != theirs and not rows_may_differ:
            yield f"{name} is {_shape(mine)} in {first.name!r} and {_shape(theirs)} in {other.name!r}"


def _settings(first: Source, other: Source) -> Iterator[str]:
    """What both configs state of heads, positions, norms and activations, where they state different things."""
    mine, theirs = (dict(_stated(source.checkpoint.text_config)) for source in (first, other))
    for name in mine.keys() & theirs.keys():
        if not _equal(mine[name], theirs[name]):
            yield f"{name} is {mine[name]!r} in {first.name!r} and {theirs[name]!r} in {other.name!r}"


def _stated(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, config[name]) for name in _COMPUTED if config.get(name) is not None)
    if (base := config.get("rope_theta")) is not None:
        yield "rope_theta", base
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if isinstance(rope, Mapping):
        flat = {_ALIASES.get(key, str(key)): value for key, value in rope.items() if not isinstance(value, Mapping)}
        # Without a word on how positions are scaled they are not.
        yield from ({"rope_type": "default"} | flat if len(flat) == len(rope) else flat).items()


def _equal(mine: object, theirs: object) -> bool:
    if isinstance(mine, float | int) and isinstance(theirs, float | int):
        return math.isclose(mine, theirs, rel_tol=1e-6)  # formats round decimals to float32
    return mine == theirs


def _vocabulary_tensors(source: Source) -> list[str]:
    return [name for name, role in source.architecture.roles.items() if role.kind in _VOCABULARY]


def _token_conflict(first: Source, other: Source) -> str | None:
    files = [source.checkpoint.root / "tokenizer.json" for source in (first, other)]
    if not all(file.is_file() for file in files):
        return None
    texts = [bytes_up_to(file, MAX_TOKENIZER) for file in files]
    if texts[0] == texts[1]:
        return None
    mine, theirs = (_tokens(file, text) for file, text in zip(files, texts, strict=True))
    for index in sorted(mine.keys() & theirs.keys()):
        if mine[index] != theirs[index]:
            return f"token {index} is {mine[index]!r} in {first.name!r} and {theirs[index]!r} in {other.name!r}"
    return None


def _tokens(file: Path, text: bytes) -> dict[int, str]:
    """Token by id, from a `tokenizer.json` of any of the four model types (unigram stores a list)."""
    try:
        content = load_json(file, text, "the tokenizer")
        vocab = content["model"]["vocab"]
        entries = vocab.items() if isinstance(vocab, dict) else ((e[0], i) for i, e in enumerate(vocab))
        added = ((entry["content"], entry["id"]) for entry in content.get("added_tokens") or ())
        return {int(index): str(token) for token, index in chain(entries, added)}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError("is not a tokenizer", where=file, remedy="fetch the file again") from error


def _float_types(source: Source) -> str:
    specs = (source.reader.spec(name) for name in source.reader.names())
    return "/".join(sorted({spec.dtype for spec in specs if spec.dtype in EDITABLE}))


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"
