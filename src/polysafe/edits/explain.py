"""What an edit does, in words and numbers, without opening a model."""

from __future__ import annotations

from collections import Counter
from typing import Any

from polysafe.checkpoint.layout import Layout
from polysafe.edits.edit import Edit
from polysafe.edits.operations import AddDelta, AddLowRank, Blend, Copy, Operation

LARGEST_FACTOR = 100
"""Weights are shares, scales a few; beyond this they are called implausible."""
LARGEST_UPDATE = 1e6
"""The same for the Frobenius norms of the two factors of an update of low rank, multiplied: matrices have hundreds."""


def explain(edit: Edit) -> dict[str, Any]:
    """The edit as plain data for people: where it comes from, what it decided, what it touches, how large it is."""
    return {
        "sha256": edit.sha256,
        "bytes": edit.nbytes,
        "start": edit.start,
        "dtype": edit.dtype,
        "sources": {name: record.model_dump() for name, record in edit.sources.items()},
        **({"implausible": told} if (told := implausible(edit)) else {}),
        "tensors_touched": len(edit.touched),
        "operations": dict(
            Counter(describe(operations, edit.start) for operations in edit.steps.values()).most_common()
        ),
        "methods": [
            {
                "method": part.method,
                "label": part.label,
                "options": part.options,
                "decisions": [decision.model_dump() for decision in part.decisions],
                "notes": list(part.notes),
                "warnings": list(part.warnings),
                **{key: part.evidence[key] for key in ("chosen", "ranking", "trials") if part.evidence.get(key)},
            }
            for part in edit.provenance
        ],
    }


def implausible(edit: Edit) -> list[str]:
    """Numbers that no method arrives at: who changes a file by hand, or damages it, may leave a model of noise."""
    return [f"{tensor}: {told}" for tensor, operation in edit.operations() if (told := _beyond(operation))]


def _beyond(operation: Operation) -> str | None:
    match operation:
        case Blend(weights=weights):
            source, weight = max(weights.items(), key=lambda item: abs(item[1]))
            return f"weight {weight:g} of {source}" if abs(weight) > LARGEST_FACTOR else None
        case AddDelta(scale=scale):
            return f"scale {scale:g}" if abs(scale) > LARGEST_FACTOR else None
        case AddLowRank(a=a, b=b):
            size = float(a.double().norm() * b.double().norm())
            return f"an update as large as {size:g}" if not size <= LARGEST_UPDATE else None
    return None


def describe(operations: tuple[Operation, ...], start: str) -> str:
    """What happens to one tensor, in a few words."""
    return ", then ".join(_describe(operation) for operation in operations) or f"copy of {start}"


def _describe(operation: Operation) -> str:
    match operation:
        case Copy(source=source):
            return f"copy of {source}"
        case Blend(rule=None, weights=weights):
            return " + ".join(f"{weight:g}·{source}" for source, weight in weights.items())
        case Blend(rule=rule, weights=weights):
            name = "" if rule is None else rule.rule.upper()
            return f"{name} of {', '.join(weights)}"
        case AddLowRank(rows=rows, a=a):
            return f"rank-{a.shape[1]} update of {rows.numel()} rows"
        case AddDelta(of=of, minus=minus, scale=scale):
            return f"{scale:g}·({of} − {minus}) on {_place(operation)}"


def _place(operation: AddDelta) -> str:
    ranges = [(name, getattr(operation, name)) for name in ("rows", "columns")]
    named = [f"{sum(stop - start for start, stop in kept)} {name}" for name, kept in ranges if kept is not None]
    return " and ".join(named) or "all columns"


def operations(edit: Edit, layout: Layout) -> dict[str, int]:
    """Number of tensors by what happens to them, for example `copy of safety`."""
    names = (spec.name for shard in layout.shards for spec in shard.tensors)
    return dict(Counter(describe(edit.steps.get(name, ()), edit.start) for name in names).most_common())
