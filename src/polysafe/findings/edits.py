"""What a report shows of an edit: which blocks, neurons or heads it chose, and how much of the model it changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from polysafe.edits.edit import Decision, Edit, Provenance
from polysafe.edits.size import StartShapes, weights_touched
from polysafe.findings.data import LayerUnits, Touched
from polysafe.stats.overlap import ChanceOverlap, chance_overlap

ALL = "all"
"""The target of an edit that is for several languages."""

_SWAPPED = frozenset({"safety", "language", "blend", "base"})


def target_of(edit: Edit) -> str:
    """The language that an edit is for, as its recipe calls it; `all` where there are several."""
    named: set[str] = set()
    for part in edit.provenance:
        several = part.options.get("languages")
        named |= {str(each) for each in several} if several else {str(part.options.get("language") or ALL)}
    return named.pop() if len(named) == 1 else ALL


def block_decisions(edit: Edit) -> tuple[Decision, ...]:
    """Which model each block came from; empty for edits that are not made of blocks of several models."""
    decisions = [decision for part in edit.provenance for decision in part.decisions]
    return tuple(decisions) if _SWAPPED & {d.choice for d in decisions} else ()


def touched(label: str, target: str, edit: Edit, start: StartShapes) -> tuple[Touched, ...]:
    """What an edit changes in the weights.

    Args:
        label: Name of the method in results.
        target: Language that the edit is for, or `all`.
        edit: The edit.
        start: Sizes of the model that it starts from.

    Returns:
        One entry for each kind of unit that was chosen, of which a stack of edits may have several; sizes are always
        those of the edit as a whole.
    """
    found = [units for part in edit.provenance for units in _units(part)]
    return tuple(
        Touched(
            method=label,
            target=target,
            edit_sha256=edit.sha256,
            edit_bytes=edit.nbytes,
            tensors=len(edit.touched),
            tensors_total=start.tensors,
            weights=weights_touched(edit, start),
            weights_total=start.weights,
            unit=unit,
            layers=layers,
            overlap=overlap,
            chance=chance,
        )
        for unit, layers, overlap, chance in found or [("blocks", (), {}, {})]
    )


_Chance = Mapping[str, Mapping[str, ChanceOverlap]]
_Units = tuple[str, tuple[LayerUnits, ...], Mapping[str, Mapping[str, float]], _Chance]


def _units(part: Provenance) -> Iterator[_Units]:
    match part.evidence:
        case {"layers": dict(layers), "jaccard": dict(jaccard)}:
            yield "neurons", tuple(_neurons(layers)), jaccard, _chance(layers, part.evidence.get("safety_neurons", {}))
        case {"heads": list(heads), "scores": list(scores), "layers_with_heads": list(layers)}:  # of a hybrid
            yield "heads", tuple(_heads(heads, dict(zip(layers, scores, strict=False)))), {}, {}
        case {"heads": list(heads), "scores": list(scores)}:
            yield "heads", tuple(_heads(heads, dict(enumerate(scores)))), {}, {}


def _chance(layers: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Mapping[str, int]]) -> _Chance:
    """What languages would share by chance; empty for edits that do not say how many units each of them has."""
    units = {
        f"{layer}.{name}": int(part["units_of"])
        for layer, about in layers.items()
        for name, part in about["projections"].items()
    }
    if any(set(units) != set(mine) for mine in counts.values()):
        return {}
    return {
        one: {
            other: chance_overlap([(units[name], mine[name], theirs[name]) for name in units])
            for other, theirs in counts.items()
            if other != one
        }
        for one, mine in counts.items()
    }


def _neurons(layers: Mapping[str, Mapping[str, Any]]) -> Iterator[LayerUnits]:
    """The units of every layer that any of its projections changes."""
    parts = {int(layer): list(about["projections"].values()) for layer, about in layers.items()}
    most = max((int(part["units_of"]) for each in parts.values() for part in each), default=0)
    for layer, each in parts.items():
        chosen = {int(unit) for part in each for unit in part["units"]}
        total = max((int(part["units_of"]) for part in each), default=most)
        yield LayerUnits(layer, "mlp", tuple(sorted(chosen)), total)


def _heads(heads: list[list[int]], scores: Mapping[int, list[float]]) -> Iterator[LayerUnits]:
    for layer, row in scores.items():
        chosen = tuple(sorted(head for other, head in heads if other == layer))
        yield LayerUnits(layer, "attention", chosen, len(row), tuple(row))
