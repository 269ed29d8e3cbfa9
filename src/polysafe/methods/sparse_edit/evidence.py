"""What a sparse weight edit did, in numbers: for the edit file, `edit explain` and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polysafe.checkpoint.opened import Source
from polysafe.edits.edit import Decision
from polysafe.methods.sparse_edit.solve import LayerEdit, ProjectionEdit, operations

_SPECTRUM = 64  # singular values that are kept


def decision(edit: LayerEdit) -> Decision:
    """One layer as a decision."""
    means = {
        f"gap_closed_{part}": sum(values) / len(values)
        for part in ("anchors", "held_out")
        if (values := [closed[part] for closed in edit.gap_closed.values() if part in closed])
    }
    return Decision(
        block=f"layers.{edit.layer}.mlp",
        layer=edit.layer,
        module="mlp",
        choice="edited" if edit.parts else "unchanged",
        safety_weight=float(bool(edit.parts)),
        score=means.get("gap_closed_held_out", means.get("gap_closed_anchors")),
        detail={
            **{f"units_{part.projection.name}": float(len(part.units)) for part in edit.parts},
            **{f"rank_{part.projection.name}": float(part.low_rank.rank) for part in edit.parts},
            **means,
            "drift": max(edit.drift.values(), default=0.0),
        },
    )


def evidence(source: Source, layers: Sequence[LayerEdit], jaccard: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """All layers, and the edit as a whole.

    Args:
        source: The model that is edited.
        layers: The edits of its layers.
        jaccard: Overlap of the safety neurons of languages.
    """
    factors = operations(layers).values()
    changed = sum(len(part.units) * part.weights.shape[0] for layer in layers for part in layer.parts)
    return {
        "layers": {str(layer.layer): _layer(source, layer) for layer in layers},
        "jaccard": {language: dict(row) for language, row in jaccard.items()},
        "weights_changed": changed,
        "share_of_weights_changed": changed / sum(spec.numel for spec in source.checkpoint.tensors.values()),
        "factor_bytes": sum(t.nbytes for factor in factors for t in (factor.rows, factor.a, factor.b)),
    }


def _layer(source: Source, edit: LayerEdit) -> dict[str, Any]:
    return {
        "form": edit.form,
        "ridge": edit.ridge,
        "free_directions": edit.free_directions,
        "gap_closed": {language: dict(closed) for language, closed in edit.gap_closed.items() if closed},
        "drift": dict(edit.drift),
        "projections": {part.projection.name: _projection(source, part) for part in edit.parts},
    }


def _projection(source: Source, part: ProjectionEdit) -> dict[str, Any]:
    stored = source.reader.spec(part.projection.tensor).dtype
    path, rank = part.path, part.low_rank.rank
    return {
        "tensor": part.projection.tensor,
        "units": part.units.tolist(),
        "units_of": part.projection.units,
        "rank": rank,
        "numerical_rank": path.numerical_rank,
        "spectrum": path.spectrum[:_SPECTRUM].sqrt().tolist(),
        "cost_before": path.squared_gap,
        "cost": path.objective(rank),
        "cost_without_rank_limit": path.objective(),
        "relative_size": part.relative_size,
        "merge_loss": {dtype: part.merge_loss(dtype) for dtype in dict.fromkeys((stored, "BF16"))},
    }
