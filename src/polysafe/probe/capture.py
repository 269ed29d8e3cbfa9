"""One forward pass over prompts that records the inputs of a projection in every chosen layer.

Activations are pooled to one row per prompt where they arise and handed to a store; no activation of a token outlives
its batch. Rows do not depend on how prompts are batched, padded or ordered (up to the rounding of the forward pass).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from polysafe.errors import DataError, MismatchError, RecipeError
from polysafe.probe.files import FORMAT, ProbeRecord, read_probe, write_probe
from polysafe.probe.forward import POOLINGS, Pooling
from polysafe.probe.hands import hands_for
from polysafe.probe.kept import capture_key, measurements
from polysafe.probe.model import LoadedModel, Site
from polysafe.probe.moments import below
from polysafe.probe.render import RenderedPrompts, Side
from polysafe.probe.residual import Residuals
from polysafe.probe.stores import Moments, Pooled, Rows, Statistics, Store
from polysafe.progress import counted

T = TypeVar("T")


@dataclass(frozen=True)
class Captured(Generic[T]):
    """What a capture recorded. `captured[layer]` is what its store has of a layer.

    Attributes:
        record: Of what model, prompts, layers and pooling.
        ids: Names of the prompts; rows are in this order.
        store: The recorded values.
    """

    record: ProbeRecord
    ids: tuple[str, ...]
    store: Store[T]

    def __getitem__(self, layer: int) -> T:
        return self.store[layer]


def capture(
    model: LoadedModel,
    prompts: RenderedPrompts,
    layers: Sequence[int] | None = None,
    *,
    into: Store[T],
    site: Site = Site.MLP,
    pooling: Pooling = "last",
    pairs: RenderedPrompts | None = None,
    batch_size: int = 16,
    side: Side = "left",
    probe_file: Path | None = None,
    save_every: int = 64,
    after: Residuals | None = None,
    keep: Residuals | None = None,
) -> Captured[T]:
    """Runs the model over the prompts and keeps what `into` keeps of the pooled activations.

    Args:
        model: The model.
        prompts: The prompts.
        layers: Layers to record, all by default.
        into: An empty `Rows()`, `Statistics()` or `Moments()`; what is returned is filled, and perhaps another one,
            with more layers, where `Measurements` keep it.
        site: Where in a layer to record; by default the input of the MLP's first projections.
        pooling: `last`: the last token of a prompt, which for chat prompts is that of the generation prompt; `mean`:
            the mean over all its tokens. Both are linear, so that pooled outputs of a projection are its outputs for
            pooled inputs; the maximum is not and is refused.
        pairs: As many prompts with the same names, whose rows go with those of `prompts` into cross moments.
        batch_size: Prompts in a forward pass.
        side: Where padding goes.
        probe_file: Where to save the result, and partial results on the way; an interrupted capture is continued
            from it, and a complete one is read without a forward pass.
        save_every: Batches between partial results.
        after: Where passes go on from, if it is not above what is recorded: the model differs from the one that this
            was kept of in its layer and above only.
        keep: Empty; is given the states that enter its layer, for a capture that goes on from there.

    Raises:
        RecipeError: The pooling is not linear, or the store cannot take pairs.
        ArchitectureError: A layer does not exist or has no such place.
        DataError: A prompt is longer than the model's positions, or activations are not finite; the message names
            prompt, layer and projection.
        MismatchError: The tokenizer is not the model's, the pairs have other names, or `probe_file` is of something
            else.
        ResourceError: A batch does not fit the device.
        OutputError: `probe_file` cannot be written.
    """
    places = _places(model, layers, site)
    _check(model, prompts, pairs, into, pooling, batch_size)
    record = _record(model, prompts, pairs, into, site, places, pooling)
    kept = measurements(model).captured
    key = capture_key(record, batch_size, side)
    found = kept.get(key) if probe_file is None else None
    if found is not None:
        whole = _places(model, {*places, *found.record.layers}, site)
        places = {layer: name for layer, name in places.items() if layer not in found.record.layers}
        if not places:
            return found
        record = _record(model, prompts, pairs, into, site, whole, pooling)
    done = _resume(probe_file, record, into, len(prompts))
    waiting = [index for index in _by_length(prompts, pairs) if not done[index]]
    advance = counted("activations", len(prompts), int(done.sum()))
    if after is not None and after.layer > min((*places, *([] if keep is None else [keep.layer]))):
        after = None
    batches = list(_chunks(waiting, batch_size))
    both = [[(each, batch) for each in (prompts, pairs) if each is not None] for batch in batches]
    how: Any = {"places": places, "pooling": pooling, "side": side, "after": after, "keep": keep}
    with closing(hands_for(model).rows(model, both, **how)) as found_rows:
        for number, (x, *y) in found_rows:
            batch = batches[number]
            for layer, rows in x.items():
                into.add(layer, Pooled(batch, len(prompts), rows, y[0][layer] if y else None))
            done[batch] = True
            advance(len(batch))
            if probe_file is not None and (number + 1) % save_every == 0:
                _save(probe_file, record, prompts.ids, into, done)
    if probe_file is not None and waiting:
        _save(probe_file, record, prompts.ids, into, done)
    if found is not None:
        into.join(found.store)
    captured = kept[key] = Captured(record, prompts.ids, into)
    return captured


def load_captured(path: Path, expected: ProbeRecord | None = None) -> Captured[Any]:
    """Reads a complete probe file without a model.

    Raises:
        CheckpointError: The file is damaged.
        DataError: It is no probe file, or a partial one.
        MismatchError: It was recorded from something else than `expected`; the message names the field.
    """
    record, ids, tensors = read_probe(path, ProbeRecord, expected)
    kept = _STORES.get(record.kind)
    if kept is None:
        FORMAT.refuse(f"holds {record.kind!r:.40}, of which this polysafe knows nothing", path)
    store = kept()
    finished = int(_restored(path, record, store, tensors).sum())
    if finished < len(ids):
        raise DataError(
            f"is a partial capture ({finished} of {len(ids)} prompts)",
            where=path,
            remedy="run the capture again with this file to finish it",
        )
    return Captured(record, ids, store)


_STORES: dict[str, type[Store[Any]]] = {store.kind: store for store in (Rows, Statistics, Moments)}


def _places(model: LoadedModel, layers: Collection[int] | None, site: Site) -> dict[int, str]:
    """Layer -> module, in the order of the layers."""
    wanted = range(model.architecture.num_layers) if layers is None else sorted(set(layers))
    if not wanted:
        raise RecipeError("no layer is named", remedy="name at least one, or leave `layers` out for all")
    return {layer: model.module(layer, site)[0] for layer in wanted}


def _check(
    model: LoadedModel,
    prompts: RenderedPrompts,
    pairs: RenderedPrompts | None,
    into: Store[T],
    pooling: str,
    batch_size: int,
) -> None:
    if pooling not in POOLINGS:
        linear = "max(XW) is not max(X)W, so nothing can be solved for from it" if pooling == "max" else "unknown"
        raise RecipeError(f"pooling {pooling!r} is refused: {linear}", remedy=f"use {' or '.join(POOLINGS)}")
    if batch_size < 1:
        raise RecipeError(f"batch_size {batch_size} is not positive")
    if into.layers:
        raise RecipeError("the store to capture into is not empty", remedy="give every capture a store of its own")
    if pairs is not None:
        _check_pairs(prompts, pairs, into)
    for rendered in (prompts, pairs):
        if rendered is not None:
            _check_tokens(model, rendered)


def _check_pairs(prompts: RenderedPrompts, pairs: RenderedPrompts, into: Store[T]) -> None:
    if not into.pairs:
        raise RecipeError(f"{type(into).__name__} keeps no cross moments", remedy="use Moments() for prompts in pairs")
    if pairs.ids != prompts.ids:
        lost = next((a for a, b in zip_longest(prompts.ids, pairs.ids) if a != b), None)
        raise MismatchError(
            f"the prompts and their pairs do not have the same names in the same order, first at {lost!r}",
            remedy="drop a prompt that lacks its pair from both",
        )


def _check_tokens(model: LoadedModel, prompts: RenderedPrompts) -> None:
    vocabulary = model.architecture.vocabulary
    for name, tokens in zip(prompts.ids, prompts.tokens, strict=True):
        if vocabulary is not None and max(tokens) >= vocabulary:
            raise MismatchError(
                f"has token {max(tokens)}, but the model knows {vocabulary}: the tokenizer is that of another model",
                where=f"prompt {name!r}",
            )
        if model.max_tokens is not None and len(tokens) > model.max_tokens:
            raise DataError(
                f"has {len(tokens)} tokens, the model has {model.max_tokens} positions; prompts are never cut",
                where=f"prompt {name!r}",
            )


def _record(
    model: LoadedModel,
    prompts: RenderedPrompts,
    pairs: RenderedPrompts | None,
    into: Store[T],
    site: Site,
    places: Mapping[int, str],
    pooling: str,
) -> ProbeRecord:
    return ProbeRecord(
        model=model.sha256,
        tokenizer=prompts.tokenizer,
        data=prompts.sha256,
        pairs=pairs.sha256 if pairs is not None else None,
        kind=into.kind,
        site=site,
        layers=tuple(places),
        modules=tuple(places.values()),
        pooling=pooling,
        dtype=model.dtype,
        prompts=len(prompts),
        tokens=prompts.num_tokens,
    )


def _by_length(prompts: RenderedPrompts, pairs: RenderedPrompts | None) -> list[int]:
    """All prompts, the longest first: little padding, and what does not fit the device fails at once."""
    sizes = [len(tokens) for tokens in prompts.tokens]
    if pairs is not None:
        sizes = [max(size, len(tokens)) for size, tokens in zip(sizes, pairs.tokens, strict=True)]
    return sorted(range(len(sizes)), key=lambda index: -sizes[index])


def _chunks(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield list(indices[start : start + size])


def _resume(path: Path | None, record: ProbeRecord, into: Store[T], count: int) -> torch.Tensor:
    """Which prompts are done already; what was recorded of them goes into the store."""
    if path is None or not path.exists():
        return torch.zeros(count, dtype=torch.bool)
    return _restored(path, record, into, read_probe(path, ProbeRecord, record)[2])


def _restored(path: Path, record: ProbeRecord, into: Store[T], tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Puts what was recorded into the store; returns which prompts are done."""

    def build(stored: Mapping[str, torch.Tensor]) -> torch.Tensor:
        done = stored["done"]
        into.restore(below(stored, "store"))
        if done.dtype != torch.bool or done.shape != (record.prompts,) or not set(into.layers) <= set(record.layers):
            raise ValueError("its tensors are not those of its record")
        if isinstance(into, Rows) and any(len(into[layer]) != record.prompts for layer in into.layers):
            raise ValueError("it has not a row for every prompt")
        return done

    return FORMAT.built(build, tensors, path)


def _save(path: Path, record: ProbeRecord, ids: tuple[str, ...], store: Store[T], done: torch.Tensor) -> None:
    kept = {f"store.{name}": value for name, value in store.tensors().items()}
    write_probe(path, record, ids, {**kept, "done": done})
