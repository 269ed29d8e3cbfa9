"""Text and numbers as readers see them: model text made visible and bounded, rates, points and p-values."""

from __future__ import annotations

import re

from polysafe.stats.intervals import Interval
from polysafe.stats.power import smallest_paired

NOTHING = "\N{EN DASH}"
"""Stands where a number is undefined."""

ARROW = "\N{RIGHTWARDS ARROW}"

LEVEL = "95\N{NARROW NO-BREAK SPACE}%"
"""Confidence level of every interval, in words."""

MAX_TEXT = 1500
"""Characters of a prompt or an answer that the page shows; the rest is in `report.json`."""

MAX_LABEL = 80
"""Characters of a name, a code or a value that the page shows."""

_INVISIBLE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, among them the escape of ANSI sequences; not tab and newline
    "\u00ad\u180e\u200b\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # breaks, bidi overrides, zero widths
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # lone surrogates and noncharacters
    "\U000e0000-\U000e0fff"  # tags: text that no reader sees
    "]"
)
_LANGUAGE_TAG = re.compile(r"(?!q[a-t][a-z])[a-z]{2,3}(-[a-z0-9]{2,8}){0,3}", re.IGNORECASE)
"""Not qaa … qtz: these are for private use, and no program of a reader knows what is meant."""


def visible(text: str) -> str:
    """Replaces characters that act on a display, or hide from it, by a readable name such as ⟨U+202E⟩.

    Joiners and the direction marks U+200E and U+200F stay: Bengali, Persian, Hebrew and Arabic are not spelt
    right without them, and they cannot reach beyond the element that holds them.
    """
    return _INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def one_line(text: str) -> str:
    """`visible`, with line breaks and tabs by name too, so that a text can forge neither a line nor a column."""
    return visible(text).replace("\n", "⟨U+000A⟩").replace("\t", "⟨U+0009⟩")


def clip(text: str, limit: int = MAX_LABEL) -> str:
    """Text of at most `limit` characters, and a visible note of how much was left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… [{len(text) - limit:,} more characters]"


def shorten(text: str, limit: int) -> str:
    """Text of at most `limit` characters, cut with an ellipsis; for labels whose full text is near by."""
    return text if len(text) <= limit else f"{text[: max(limit - 1, 0)]}…"


def language_tag(code: str) -> str:
    """`code` as a value for HTML's lang attribute; empty (unknown) where it is none that a reader's program knows."""
    return code if _LANGUAGE_TAG.fullmatch(code) else ""


def percent(rate: float | None) -> str:
    """A rate as a whole percentage, with one decimal where rounding would pretend 0 or 100 %."""
    return NOTHING if rate is None else f"{percent_number(rate)}\N{NARROW NO-BREAK SPACE}%"


def percent_number(rate: float | None) -> str:
    """`percent` without the sign, for cells whose unit is given elsewhere."""
    if rate is None:
        return NOTHING
    value = 100 * rate
    if 0 < value < 1 or 99 < value < 100:
        clamped = min(max(value, 0.1), 99.9)
        return f"{clamped:.1f}"
    return f"{value:.0f}"


def interval(span: Interval | None) -> str:
    """An interval in percent; empty where there is none."""
    return "" if span is None else f"{percent_number(span.low)}\N{EN DASH}{percent_number(span.high)}"


def change(before: float | None, after: float | None) -> str:
    """A rate before and after."""
    if before is None or after is None:
        return NOTHING
    return f"{percent_number(before)} {ARROW} {percent(after)}"


def interval_change(before: Interval | None, after: Interval | None) -> str:
    """An interval before and after; empty where one is missing."""
    return "" if before is None or after is None else f"{interval(before)} {ARROW} {interval(after)}"


def points(difference: float | None) -> str:
    """A difference of rates in percentage points, signed, with one decimal."""
    if difference is None:
        return NOTHING
    value = round(100 * difference, 1)
    return "0.0" if value == 0 else f"{value:+.1f}".replace("-", "\N{MINUS SIGN}")


def least_points(n: int) -> str:
    """The smallest difference that n pairs detect, in whole points (see `polysafe.stats.smallest_paired`)."""
    smallest = smallest_paired(n)
    return "none" if smallest is None else f"\N{GREATER-THAN OR EQUAL TO} {100 * smallest:.0f}"


def sized(shown: object, pairs: int) -> str:
    """A number of items, and the smallest difference that they detect.

    Args:
        shown: The number, or how many in how many languages.
        pairs: Number of independent pairs that it is worth.
    """
    least = least_points(pairs)
    return f"n {shown}, detects {least}{'' if least == 'none' else ' points'}"


def signed(value: float | None) -> str:
    """A number that is neither a rate nor a difference of rates, with its sign and two decimals."""
    return NOTHING if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def number(value: float | None) -> str:
    """A number that has no sign, with two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def gap_interval(span: Interval | None) -> str:
    """An interval of a difference in percentage points; empty where there is none."""
    return "" if span is None else f"{points(span.low)} to {points(span.high)}"


def p_value(p: float | None) -> str:
    """A p-value to two significant digits."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    return "1" if p == 1 else f"{p:.2g}"


def score(value: float | None) -> str:
    """A decision score d, signed."""
    return "not scored" if value is None else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")
