"""Which attention heads are edited: from effects to a ranking, from rankings to a set, and the sets it has to beat.

Everything here is plain arithmetic on maps of shape [layers, heads], of the layers that have heads; a head is a pair
(layer, head).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
import torch

from polysafe.errors import EditError, RecipeError

Head = tuple[int, int]
Combine = Literal["mean", "zscore", "rank"]
Ranking = Literal["signed", "absolute", "norm"]
Control = Literal["random", "random_per_layer", "bottom", "all"]


def combined(per_task: torch.Tensor, how: Combine) -> torch.Tensor:
    """One score per head from the effects on several tasks.

    Args:
        per_task: Mean effects, [tasks, layers, heads].
        how: `mean` as published, so that tasks with large effects decide; `zscore`: every task is centred and divided
            by its spread over heads first; `rank`: the mean of the heads' ranks, from 0 (lowest) to 1 (highest),
            equal effects sharing theirs.

    Returns:
        Scores, float64 [layers, heads].
    """
    wide = per_task.to(torch.float64)
    flat = wide.flatten(1)
    if how == "zscore":
        spread = flat.std(1, correction=0, keepdim=True)
        flat = (flat - flat.mean(1, keepdim=True)) / torch.where(spread > 0, spread, 1.0)
    elif how == "rank":
        flat = torch.stack([_ranks(row) for row in flat])
    return flat.mean(0).view(wide.shape[1:])


def _ranks(row: torch.Tensor) -> torch.Tensor:
    values, places, counts = torch.unique(row, return_inverse=True, return_counts=True)
    first = counts.cumsum(0) - counts
    shared = first + (counts - 1) / 2
    return (shared / max(1, len(row) - 1))[places] if len(values) > 1 else torch.full_like(row, 0.5)


def ranked(scores: torch.Tensor) -> tuple[Head, ...]:
    """All heads from the highest score to the lowest; equal ones by layer, then by head.

    Args:
        scores: [layers, heads].
    """
    heads = scores.shape[1]
    order = torch.argsort(scores.flatten().to(torch.float64), descending=True, stable=True)
    return tuple((index // heads, index % heads) for index in order.tolist())


def first(scores: torch.Tensor, count: int, *, positive: bool = False) -> tuple[Head, ...]:
    """The `count` heads of highest score, or those of them whose score is positive."""
    kept = ranked(scores)[:count]
    return tuple(head for head in kept if scores[head] > 0) if positive else kept


def majority(sets: Sequence[Collection[Head]]) -> tuple[Head, ...]:
    """Heads that are in more than half of the sets, by layer and head (the published rule for groups of languages)."""
    votes = Counter(head for chosen in sets for head in set(chosen))
    return tuple(sorted(head for head, count in votes.items() if 2 * count > len(sets)))


def share_to_count(fraction: float, total: int) -> int:
    """How many heads a fraction is: the nearest whole number, at least one."""
    return max(1, min(total, round(fraction * total)))


def control_heads(kind: Control, chosen: Sequence[Head], scores: torch.Tensor, seed: int = 0) -> tuple[Head, ...]:
    """What the choice of heads has to beat.

    Args:
        kind: `random`: as many heads, drawn from all; `random_per_layer`: as many in each layer as were chosen there;
            `bottom`: as many of lowest score; `all`: every head.
        chosen: The heads that the method chose.
        scores: Scores of all heads, [layers, heads].
        seed: Seed of the draw.

    Returns:
        The heads, by layer and head.
    """
    layers, heads = scores.shape
    generator = np.random.default_rng(seed)
    if kind == "all":
        return tuple((layer, head) for layer in range(layers) for head in range(heads))
    if kind == "bottom":
        return tuple(sorted(ranked(-scores)[: len(chosen)]))
    if kind == "random":
        drawn = generator.choice(layers * heads, len(chosen), replace=False)
        return tuple(sorted((int(index) // heads, int(index) % heads) for index in drawn))
    counts = Counter(layer for layer, _ in chosen)
    return tuple(
        (layer, int(head))
        for layer in range(layers)
        for head in sorted(generator.choice(heads, counts[layer], replace=False))
    )


def checked_heads(
    heads: Iterable[Sequence[int]], layers: Sequence[int], per_layer: int
) -> tuple[tuple[Head, ...], int]:
    """Heads that were named by hand, each once, by layer and head, and how many were named again.

    Raises:
        RecipeError: There is no such head; nothing is dropped silently.
    """
    named = [(int(layer), int(head)) for layer, head in heads]
    for layer, head in named:
        if not (layer in layers and 0 <= head < per_layer):
            ends = f"{layers[0]} … {layers[-1]}"
            which = ends if len(layers) == layers[-1] - layers[0] + 1 else ", ".join(map(str, layers))
            raise RecipeError(
                f"there is no head {head} in layer {layer}",
                remedy=f"layers with heads are {which}, heads 0 … {per_layer - 1}; was the list made for this model?",
            )
    distinct = tuple(sorted(set(named)))
    if not distinct:
        raise EditError("no head is chosen", remedy="raise `fraction` or `count`, or leave `positive` out")
    return distinct, len(named) - len(distinct)


def column_ranges(heads: Collection[Head], layer: int, size: int) -> tuple[tuple[int, int], ...]:
    """Ranges of the output projection's inputs that belong to the heads of one layer; neighbours are joined.

    Args:
        heads: Heads of any layer.
        layer: The layer.
        size: Size of a head.
    """
    ranges: list[tuple[int, int]] = []
    for head in sorted(head for other, head in heads if other == layer):
        start, stop = head * size, (head + 1) * size
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return tuple(ranges)
