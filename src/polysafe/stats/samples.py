"""Yes-or-no outcomes and cluster names as arrays, checked once where they come in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from polysafe.errors import DataError


def flags(outcomes: Sequence[bool]) -> NDArray[np.float64]:
    """Outcomes as an array of zeros and ones, shape (items,).

    Raises:
        DataError: One of them is neither true nor false, for example not a number.
    """
    try:
        values = np.asarray(outcomes)
        numbers = values.astype(np.float64) if values.dtype.kind not in "USO" else _cast(outcomes)
    except (TypeError, ValueError) as error:
        raise DataError(f"outcomes are not a list of yes and no: {error}") from error
    if numbers.ndim != 1:
        raise DataError(f"outcomes are a list with one value per item, not an array of shape {numbers.shape}")
    wrong = np.flatnonzero((numbers != 0.0) & (numbers != 1.0))
    if wrong.size:
        raise DataError(
            f"outcome {wrong[0]} of {numbers.size} is {outcomes[int(wrong[0])]!r}, neither true nor false",
            remedy="Leave items without a verdict out, and count them.",
        )
    return numbers


def _cast(outcomes: Sequence[object]) -> NDArray[np.float64]:
    # Texts and None would turn into numbers silently.
    return np.array([float(x) if isinstance(x, bool | int | float | np.generic) else np.nan for x in outcomes])


def paired_flags(before: Sequence[bool], after: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outcomes of the same items twice, each of shape (pairs,).

    Raises:
        DataError: The two differ in number, or one of them is neither true nor false.
    """
    first, second = flags(before), flags(after)
    if first.size != second.size:
        raise DataError(
            f"{first.size} outcomes before and {second.size} after do not make pairs",
            remedy="Give both outcomes of every item, in the same order.",
        )
    return first, second


def codes(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.intp]:
    """Cluster names as numbers from 0, shape (items,); every item is a cluster of its own where none are given.

    Raises:
        DataError: There is not one name per item.
    """
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise DataError(f"{n} items have {len(clusters)} cluster names", remedy="Give every item its cluster.")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
