from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.stats import Interval
from polysafe.text import readable as t

NNBSP = "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", "⟨U+001B⟩[31m"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u2028", "⟨U+2028⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("ক্\u200dষ \u200e\u200f", "ক্\u200dষ \u200e\u200f"),
    ],
)
def test_visible(raw: str, shown: str) -> None:
    assert t.visible(raw) == shown


@given(st.text(st.characters(exclude_categories=[])))
def test_one_line_is_one(raw: str) -> None:
    assert len(t.one_line(raw).splitlines()) == bool(raw)
    assert "\t" not in t.one_line(raw)


@given(st.text(st.characters(exclude_categories=[])))
def test_visible_text_can_be_written_and_holds_no_control(raw: str) -> None:
    shown = t.visible(raw)
    shown.encode("utf-8")
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert not [c for c in shown if unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI"}]
    assert t.visible(shown) == shown


@pytest.mark.fault(24, "lines of a megabyte")
@given(st.text(max_size=200), st.integers(0, 100))
def test_clip_is_bounded_and_says_what_it_left_out(raw: str, limit: int) -> None:
    clipped = t.clip(raw, limit)
    assert clipped.startswith(raw[:limit])
    assert (clipped == raw) == (len(raw) <= limit)
    if len(raw) > limit:
        assert f"{len(raw) - limit} more characters" in clipped


@given(st.text(max_size=50), st.integers(1, 30))
def test_shorten_is_bounded(raw: str, limit: int) -> None:
    assert len(t.shorten(raw, limit)) <= limit


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(0.0, "0"), (1.0, "100"), (0.5, "50"), (0.004, "0.4"), (0.9967, "99.7"), (0.99999, "99.9"), (1e-9, "0.1")],
)
def test_percentages_never_round_to_none_or_all(rate: float, shown: str) -> None:
    assert t.percent(rate) == f"{shown}{NNBSP}%"


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_only_none_is_shown_as_none_and_all_as_all(rate: float) -> None:
    assert 0.0 < float(t.percent_number(rate)) < 100.0


@pytest.mark.parametrize(
    ("difference", "shown"), [(-0.004, "−0.4"), (0.1234, "+12.3"), (0.0, "0.0"), (-0.0001, "0.0"), (None, t.NOTHING)]
)
def test_points(difference: float | None, shown: str) -> None:
    assert t.points(difference) == shown


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0, "< 0.001"), (0.00099, "< 0.001"), (0.0123, "0.012"), (1.0, "1"), (None, t.NOTHING)]
)
def test_p_values(p: float | None, shown: str) -> None:
    assert t.p_value(p) == shown


def test_undefined_numbers_are_a_dash_and_not_zero() -> None:
    assert t.percent(None) == t.percent_number(None) == t.NOTHING
    assert t.interval(None) == t.interval_change(None, Interval(0.0, 0.1)) == ""
    assert t.change(None, 0.5) == t.NOTHING
    assert t.score(None) == "not scored"


@pytest.mark.parametrize(
    ("code", "tag"),
    [("sw", "sw"), ("que", "que"), ("zh-Hans", "zh-Hans"), ('x" y', ""), ("", ""), ("qac", ""), ("qtz-Latn", "")],
)
def test_language_tag(code: str, tag: str) -> None:
    assert t.language_tag(code) == tag
