"""How far an expert moved from its base: relative Frobenius update norms of its projections.

For tensor i of expert E (Shin & Hwang, EACL 2026): r = ‖W_E,i − W_B,i‖ / ‖W_B,i‖, or the norm of the
difference alone where ‖W_B,i‖ ≤ 1e-8, as for biases that start at zero.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from polysafe.checkpoint.lora import AdaptedCheckpoint
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import Architecture, Kind, Module, TensorRole
from polysafe.edits.operations import Arithmetic
from polysafe.errors import CheckpointError, MismatchError
from polysafe.files import memory
from polysafe.methods.blocks import BlockKey, Granularity, blocks_of
from polysafe.threads import in_order, threads

Aggregate = Literal["l1", "l2"]

_EPSILON = 1e-8

ZERO_NORM = 1e-8
"""Norm of a base tensor up to which the update counts absolutely."""

UNRELATED = 0.9
"""Relative update norm from which on a base is no ancestor: independent weights of equal size give √2."""

_PUBLISHED = re.compile(r"model\.layers\.\d+\.(?:self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.")
_SHOWN = 3
_NORMS = "norms"


@dataclass(frozen=True, slots=True)
class Scored:
    """A tensor whose movement counts for its block.

    Attributes:
        tensor: Its name.
        layer: Its layer.
        module: Its block in that layer.
        bias: Whether it is a bias.
        members: Number of experts stacked along its first axis, each scored on its own; 1 if it is no stack.
    """

    tensor: str
    layer: int
    module: Module
    bias: bool
    members: int


Norms = tuple[list[float], list[list[float]]]
"""Norms of a tensor's members, and of the update of every expert."""

Ratios = Mapping[str, tuple[float, ...]]
"""Relative update norms by tensor, one per member."""


def scored_tensors(
    architecture: Architecture, *, biases: bool = True, experts: bool = True, published: bool = False
) -> tuple[Scored, ...]:
    """The projections of all layers.

    Args:
        architecture: Where to look.
        biases: Whether a bias of a projection is scored, as a tensor of its own.
        experts: Whether the experts of a mixture are scored.
        published: Whether only the seven names that the published program knows are scored.
    """
    return tuple(
        Scored(name, role.layer, role.module, role.bias, role.experts or 1)
        for name, role in architecture.roles.items()
        if role.kind is Kind.PROJECTION and role.layer is not None and role.module is not None
        if (biases or not role.bias) and (experts or not _in_expert(role))
        if not published or _PUBLISHED.search(name)
    )


def _in_expert(role: TensorRole) -> bool:
    """Whether a tensor belongs to the experts of a mixture (a shared expert is an ordinary MLP)."""
    return role.expert is not None or role.experts is not None


@dataclass(frozen=True)
class Movement:
    """How far some experts moved from their base, to be read.

    Attributes:
        base: The base.
        experts: The experts.
        scored: The tensors that count.
        arithmetic: As for `relative_update_norms`.
    """

    base: Source
    experts: tuple[Source, ...]
    scored: tuple[Scored, ...]
    arithmetic: Arithmetic = "float32"

    def norms(self) -> dict[str, Ratios]:
        """The norms of every expert, by its name."""
        return relative_update_norms(self.base, self.experts, self.scored, arithmetic=self.arithmetic)


def read_together(movements: Iterable[Movement]) -> None:
    """Reads each base, and each of its experts, once for all: what is kept of them is read by nobody again.

    Nothing is kept of what is damaged, which is told by whoever reads it next.
    """
    bases: dict[tuple[object, ...], dict[tuple[memory.Stamp, ...], tuple[Movement, Source]]] = {}
    for each in movements:
        for expert in each.experts:
            if (stamps := stamps_of(each.base, expert)) is not None:
                of = (*stamps[: len(each.base.checkpoint.headers)], each.scored, each.arithmetic)
                bases.setdefault(of, {}).setdefault(tuple(stamps), (each, expert))
    for found in bases.values():
        first = next(iter(found.values()))[0]
        experts = [replace(expert, name=f"{expert.name} {place}") for place, (_, expert) in enumerate(found.values())]
        _read_whole(replace(first, experts=tuple(experts)))


def _read_whole(moved: Movement) -> None:
    """Reads the experts of a base that can be read; once more from the beginning for each that cannot."""
    try:
        moved.norms()
    except CheckpointError as error:
        whole = tuple(each for each in moved.experts if error.where not in each.checkpoint.files)
        if 0 < len(whole) < len(moved.experts):  # else it is the base
            _read_whole(replace(moved, experts=whole))


def relative_update_norms(
    base: Source, experts: Sequence[Source], scored: Iterable[Scored], *, arithmetic: Arithmetic = "float32"
) -> dict[str, Ratios]:
    """Relative update norms of several experts of one base, by the name of the expert.

    Every tensor of the base and of each expert is read once, and none of an expert that was read before and has not
    changed since (`files.memory`). With `float32`, tensors are read in blocks of rows and
    squares of float32 differences are summed in float64; of a LoRA adapter of this base the factors are enough. With
    `authors`, whole tensors are cast to bfloat16, subtracted, and their norms rounded to bfloat16, as in the published
    program.

    Raises:
        CheckpointError: A tensor holds NaN or infinity; the message names it and its model.
    """
    items, began = tuple(scored), time.time()
    known = {expert.name: _recalled(base, expert, items, arithmetic) for expert in experts}
    unread = [expert for expert in experts if known[expert.name] is None]
    read = _measured(base, unread, items, arithmetic) if unread else {}
    for expert in unread:
        if (stamps := stamps_of(base, expert)) is not None:
            memory.keep(_NORMS, stamps, read[expert.name], *_settings(base, expert, arithmetic), began=began)
    return {expert.name: known[expert.name] or read[expert.name] for expert in experts}


def _measured(
    base: Source, experts: Sequence[Source], scored: Iterable[Scored], arithmetic: Arithmetic
) -> dict[str, dict[str, tuple[float, ...]]]:
    ratios: dict[str, dict[str, tuple[float, ...]]] = {expert.name: {} for expert in experts}
    from polysafe.methods.norms import published_norms, streamed_norms  # numpy, which remembered norms do not need

    items, norms = tuple(scored), published_norms if arithmetic == "authors" else streamed_norms
    measure = partial(norms, base=base, experts=experts)
    with ExitStack() as stack:
        if arithmetic == "authors":  # whole tensors: one at a time
            found: Iterator[Norms] = map(measure, items)
        else:
            if any(type(each.reader) is not CheckpointReader for each in (base, *experts)):  # else torch is not needed
                stack.enter_context(threads(1))
            found = stack.enter_context(closing(in_order(measure, items)))
        for item, (base_norms, update_norms) in zip(items, found, strict=True):
            _require_finite(item, base, base_norms)
            for expert, moved in zip(experts, update_norms, strict=True):
                _require_finite(item, expert, moved)
                ratios[expert.name][item.tensor] = tuple(map(_ratio, moved, base_norms))
    return ratios


def _recalled(base: Source, expert: Source, scored: Sequence[Scored], arithmetic: Arithmetic) -> Ratios | None:
    """The norms of an expert that were kept, None where some of the wanted ones were not."""
    stamps = stamps_of(base, expert)
    kept = None if stamps is None else memory.recall(_NORMS, stamps, *_settings(base, expert, arithmetic))
    if kept is None or any(not numbers(kept.get(item.tensor), item.members) for item in scored):
        return None
    return {item.tensor: tuple(kept[item.tensor]) for item in scored}


def _settings(base: Source, expert: Source, arithmetic: Arithmetic) -> tuple[object, ...]:
    return (arithmetic, *adapted(base, expert))


def adapted(base: Source, expert: Source) -> tuple[object, ...]:
    """What is read of two models depends on beside their files: how many are the base's, and factors of adapters."""
    scales = [dict(each.checkpoint.scales) for each in (base, expert) if isinstance(each.checkpoint, AdaptedCheckpoint)]
    return (len(base.checkpoint.headers), scales)


def remembered(
    kind: str,
    base: Source,
    expert: Source,
    settings: Sequence[object],
    count: int,
    measure: Callable[[], Sequence[float]],
) -> list[float]:
    """Numbers that are read off two models: those that were kept, while no file of them changed since (`files.memory`).

    Args:
        kind: What they are called.
        base: A model.
        expert: Another one.
        settings: What they depend on besides.
        count: How many they are.
        measure: Reads the models.
    """
    stamps, began = stamps_of(base, expert), time.time()
    settings = (*adapted(base, expert), *settings)
    known = None if stamps is None else memory.recall(kind, stamps, *settings)
    if known is not None and numbers(known.get(kind), count):
        return [float(value) for value in known[kind]]
    found = list(measure())
    if stamps is not None:
        memory.keep(kind, stamps, {kind: found}, *settings, began=began)
    return found


def numbers(value: object, count: int) -> bool:
    """Whether it is that many finite numbers; a cache can hold anything."""
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(isinstance(each, float | int) and math.isfinite(each) for each in value)


def stamps_of(base: Source, expert: Source) -> list[memory.Stamp] | None:
    """The files of both; None where one is read behind an edit, and so is no file."""
    if not all(isinstance(each.reader, CheckpointReader) for each in (base, expert)):
        return None
    return [header.stamp for each in (base, expert) for header in each.checkpoint.headers]


def profile(
    blocks: Mapping[BlockKey, Sequence[str]], scored: Iterable[Scored], ratios: Ratios, aggregate: Aggregate
) -> dict[BlockKey, float]:
    """The n of every block that has a scored tensor: its members' relative update norms, added up.

    Args:
        blocks: Block -> its tensors.
        scored: The tensors that count.
        ratios: Their relative update norms.
        aggregate: Whether a block has their sum (l1), or the root of the sum of their squares (l2).
    """
    of = {tensor: key for key, tensors in blocks.items() for tensor in tensors}
    members: dict[BlockKey, list[float]] = {}
    for item in scored:
        if item.tensor in of:
            members.setdefault(of[item.tensor], []).extend(ratios[item.tensor])
    add = math.fsum if aggregate == "l1" else _root_of_squares
    return {key: add(members[key]) for key in sorted(members)}


def _root_of_squares(values: Iterable[float]) -> float:
    return math.sqrt(math.fsum(value * value for value in values))


def usual_aggregate(granularity: Granularity) -> Aggregate:
    """How the published programs add up: l1 for layers, l2 for modules; l2 for projections, which they do not have."""
    return "l1" if granularity == "layer" else "l2"


def movement(base: Source, safety: Source, language: Source, granularity: Granularity) -> dict[BlockKey, float]:
    """The published score of every block, d = p_safety − p_language, with p = n / (Σ n + 1e-8).

    It is that of `layer_swap` with its defaults; of projections, which it does not decide, the same formula.

    Raises:
        CheckpointError: A tensor holds NaN or infinity.
    """
    scored, blocks = scored_tensors(base.architecture), blocks_of(base.architecture, granularity)
    norms = relative_update_norms(base, [safety, language], scored)
    p_safety, p_language = (
        shares(profile(blocks, scored, norms[each.name], usual_aggregate(granularity))) for each in (safety, language)
    )
    return {key: p_safety[key] - p_language[key] for key in p_safety}


def shares(n: Mapping[BlockKey, float], family: Mapping[BlockKey, str] | None = None) -> dict[BlockKey, float]:
    """The p of every block: its share of the n of all, or of those of its family."""
    families = dict.fromkeys(n, "") if family is None else family
    totals = {f: math.fsum(n[key] for key in n if families[key] == f) for f in set(families.values())}
    return {key: value / (totals[families[key]] + _EPSILON) for key, value in n.items()}


def require_descendant(base: Source, expert: Source, scored: Iterable[Scored], ratios: Ratios) -> None:
    """Refuses an expert that moved about as far as its weights are long: it does not descend from this base.

    Raises:
        MismatchError: Showing the three largest relative update norms.
    """
    moved = [(max(ratios[item.tensor]), item.tensor) for item in scored if not item.bias]
    typical = sorted(moved)[len(moved) // 2][0]
    if typical <= UNRELATED:
        return
    worst = ", ".join(f"{name} {size:.2f}" for size, name in sorted(moved, reverse=True)[:_SHOWN])
    raise MismatchError(
        f"{base.name!r} is not the model that {expert.name!r} was fine-tuned from: its matrices differ by "
        f"{typical:.2f} of their own norm (largest: {worst})",
        where=expert.checkpoint.root,
        remedy="name the base that it was trained from, or set `allow_unrelated_base: true`",
    )


def _ratio(update: float, base: float) -> float:
    return update / base if base > ZERO_NORM else update


def _require_finite(item: Scored, source: Source, norms: Sequence[float]) -> None:
    if not all(map(math.isfinite, norms)):
        raise CheckpointError(
            f"tensor {item.tensor} of {source.name!r} holds NaN or infinity",
            where=source.reader.spec(item.tensor).file,
            remedy="a checkpoint with such weights is broken; fetch or train it again",
        )
