"""The number that an answer ends with, in any script.

A filter that knows `0-9` only finds nothing in an answer whose digits are Bengali, Thai or Telugu, and takes the model
for one that cannot count. Here every decimal digit of Unicode is a digit. A sign before groups of three digits (of two
and then three, as in India) separates thousands, whichever sign it is; any other point or comma is a decimal mark.
"""

from __future__ import annotations

import re
from decimal import Decimal

_THOUSANDS = (
    r"\d{1,3}(?:(?P<group>[.,،٬，．'’])\d{2,3}(?:(?P=group)\d{2,3})*(?<=\d{3})"
    "|(?P<space>[ \u00a0\u2009\u202f])\\d{3}(?:(?P=space)\\d{3})*)"
)
# A minus is one unless something is left of it: `10-3` ends with 3.
_NUMBER = re.compile(
    rf"(?:(?<![\w)\]])(?P<minus>[-−－]))?(?<!\d)(?:(?P<thousands>{_THOUSANDS})|(?P<whole>\d+))"
    r"(?:[.,،٫，．](?P<decimals>\d+))?(?!\d)"
)


def last_number(text: str) -> Decimal | None:
    """The last number of a text, None where it has none.

    Args:
        text: An answer, in any script; numbers in words, and Chinese ones, are not read.
    """
    numbers = list(_NUMBER.finditer(text))
    if not numbers:
        return None
    found = numbers[-1]
    whole, decimals = _ascii(found["thousands"] or found["whole"]), _ascii(found["decimals"] or "0")
    if found["thousands"] and whole.startswith("0"):  # 0.125: no thousands begin with zero
        whole, decimals = "0", whole[1:]
    return Decimal(f"{'-' if found['minus'] else ''}{whole}.{decimals}")


def _ascii(text: str) -> str:
    """The digits of a text as 0 to 9."""
    return "".join(str(int(sign)) for sign in text if sign.isdecimal())
