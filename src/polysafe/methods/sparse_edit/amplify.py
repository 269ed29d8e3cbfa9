"""Amplification: what happens to refusals when safety neurons speak louder. A diagnostic, not a repair.

The motivating experiment of Liang et al. (ICML 2026, section 3.2) multiplies the outputs of chosen units by a factor
above 1; a factor of 0 silences them. The outputs of a projection are linear in its rows, so this is an edit like any
other, and can be tried out, saved and applied like one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from polysafe.checkpoint.opened import Source
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddLowRank
from polysafe.errors import EditError
from polysafe.methods.sparse_edit.mlp_units import Projection


def amplification(source: Source, units: Mapping[Projection, torch.Tensor], factor: float) -> Edit:
    """The edit that multiplies the outputs of some units.

    Args:
        source: The model.
        units: Projection -> indices of its units, ascending.
        factor: What their outputs are multiplied by.

    Raises:
        EditError: Two projections are stored in one tensor, or there is no unit.
    """
    steps: dict[str, tuple[AddLowRank, ...]] = {}
    for projection, chosen in units.items():
        for tensor in filter(None, (projection.tensor, projection.bias)):
            if tensor in steps:
                raise EditError("holds two of the projections; amplify one at a time", where=tensor)
            if len(chosen):
                steps[tensor] = (_scaled(source, tensor, projection.first + chosen, factor),)
    if not steps:
        raise EditError("there is no unit to amplify", where=source.name)
    return Edit(
        start=source.name, steps=dict(steps), sources={source.name: SourceRecord(origin=source.checkpoint.origin)}
    )


def _scaled(source: Source, tensor: str, rows: torch.Tensor, factor: float) -> AddLowRank:
    """Adds (factor − 1)·W to the rows W, as the product of a diagonal matrix and W itself."""
    stop = int(rows[-1]) + 1
    values = source.reader.rows(tensor, 0, stop)[rows].to(torch.float64)
    if source.reader.spec(tensor).columns == 1:
        return AddLowRank(rows=rows, a=(factor - 1) * values, b=torch.ones(1, 1, dtype=torch.float64))
    return AddLowRank(rows=rows, a=(factor - 1) * torch.eye(len(rows), dtype=torch.float64), b=values.mT.contiguous())
