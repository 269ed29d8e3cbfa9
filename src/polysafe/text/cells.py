"""Tables as CSV files that a spreadsheet reads as data and never as formulas.

Lines end in CR LF and every text is quoted (RFC 4180), in UTF-8 without a byte order mark; numbers stand bare with all
their digits, and what is undefined is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from polysafe.text.readable import clip, visible

Scalar: TypeAlias = str | int | float | bool | None
Record: TypeAlias = Mapping[str, Scalar]

MAX_CELL = 30_000
"""Characters of a cell; spreadsheets hold 32,767."""

_SIGNS = (
    r"=+\-@|%\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}"
    r"\N{FULLWIDTH COMMERCIAL AT}\N{MINUS SIGN}"
)
_IGNORED = "[ \N{NO-BREAK SPACE}\N{IDEOGRAPHIC SPACE}\u200c\u200d\u200e\u200f\"']*"
# Where a system's list separator is another than the comma, quotes do not hold a cell together: one begins after every
# semicolon, tab and line break of a text.
_BEGINNING = re.compile(rf"\A(?={_IGNORED}[{_SIGNS}\t\n])|(?<=[;\t\n])(?={_IGNORED}[{_SIGNS}])")


def csv_bytes(columns: Sequence[str], records: Iterable[Record]) -> bytes:
    """A table as the content of a CSV file.

    Args:
        columns: Names of the columns, in their order.
        records: One per line; what a record lacks is empty.
    """
    lines = [",".join(_cell(column) for column in columns)]
    lines += [",".join(_cell(record.get(column)) for column in columns) for record in records]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _cell(value: Scalar) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return '"' + inert(value).replace('"', '""') + '"'


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula: what could begin one gets an apostrophe in front.

    So does what could begin one where another separator than the comma is assumed.

    Characters that act on a display are shown by name, and very long text is cut and says so.
    """
    return _BEGINNING.sub("'", visible(clip(text, MAX_CELL)))
