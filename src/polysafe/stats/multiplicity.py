"""Correction for testing many languages at once."""

from __future__ import annotations

from collections.abc import Sequence

from polysafe.errors import DataError


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down procedure (Holm 1979), in the order given.

    Calling every hypothesis with an adjusted value below a level significant keeps the chance of even one
    false claim in the family at that level or less, whatever the dependence between the tests; languages that
    share prompts are dependent.

    Raises:
        DataError: A value is not a number in 0 … 1.
    """
    for p in p_values:
        if not 0.0 <= p <= 1.0:
            raise DataError(f"{p} is not a p-value")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
