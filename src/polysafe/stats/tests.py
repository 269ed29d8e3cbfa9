"""Tests of paired yes-or-no outcomes."""

from __future__ import annotations

from polysafe.errors import DataError


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar test: do the items that changed prefer one direction?

    Under the null hypothesis each changed item is a fair coin (McNemar 1947; exact binomial form), so the
    p-value is twice the smaller tail of Binomial(b + c, 1/2), at most 1. Items that did not change carry no
    information. The sum runs over integers and is rounded once.

    Args:
        b: Items that were true before and false after.
        c: Items that were false before and true after.

    Returns:
        The p-value; 1 where nothing changed.

    Raises:
        DataError: A count is negative.
    """
    if b < 0 or c < 0:
        raise DataError(f"numbers of changed items cannot be negative: {b} and {c}")
    changed = b + c
    term = tail = 1
    for i in range(min(b, c)):
        term = term * (changed - i) // (i + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << changed))
