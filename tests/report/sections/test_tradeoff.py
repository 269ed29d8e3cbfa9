from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from polysafe.findings.contests import ABILITY, Contest
from polysafe.report.sections.tradeoff import Point, beaten, beats, tradeoff_points, tradeoffs
from polysafe.report.sections.versus import contests_of
from polysafe.stats.rows import RateRow
from polysafe.stats.versus import Versus
from polysafe.text.readable import percent
from tests.report.examples import example, rows

SAFER = (-0.3, -0.4, -0.2, 0.001)
"""Difference, ends of its interval, and adjusted p."""
SAME = (0.0, -0.02, 0.02, 1.0)
UNSURE = (0.0, -0.08, 0.08, 1.0)
ABLER = (0.2, 0.1, 0.3, 0.001)


def point(method: str, *, broken: bool = False) -> Point:
    unsafe, ability = (RateRow(method, "all", metric, 0.5, 48, 0.4, 0.6) for metric in ("unsafe", ABILITY))
    return Point(1, method, unsafe, ability, broken=broken)


def contest(unsafe: tuple[float, ...], ability: tuple[float, ...], method: str = "a", other: str = "b") -> Contest:
    pairs = [
        Versus(method, other, metric, 0.5, 0.5 + difference, 48, 48, low, high, p, p)
        for metric, (difference, low, high, p) in (("unsafe", unsafe), (ABILITY, ability))
    ]
    return Contest("base", ("qac",), ("knowledge",), (), tuple(pairs))


@pytest.mark.parametrize(
    ("unsafe", "ability", "wins"),
    [
        (SAFER, SAME, True),
        (SAFER, ABLER, True),
        (SAME, ABLER, True),
        (SAME, SAME, False),  # as good as each other
        (SAFER, UNSURE, False),  # what it may cost in ability is more than is tolerated
        (UNSURE, ABLER, False),
        ((-0.3, -0.7, 0.1, 0.06), SAME, False),  # larger than others, and smaller than its interval
        (SAFER, tuple(-each for each in (0.2, 0.3, 0.1, -0.001)), False),  # a trade: both stand
    ],
)
def test_only_paired_differences_beat(unsafe: tuple[float, ...], ability: tuple[float, ...], wins: bool) -> None:
    drawn = [point("a"), point("b")]
    assert beats(contest(unsafe, ability), *drawn) is wins
    assert not beats(contest(unsafe, ability), *reversed(drawn)) or not wins
    assert set(beaten(contest(unsafe, ability), drawn)) == ({"b"} if wins else set())


def test_a_comparison_counts_in_whichever_order_it_was_made() -> None:
    worse = tuple(-each for each in (-0.3, -0.2, -0.4, -0.001))
    assert beats(contest(worse, SAME, "b", "a"), point("a"), point("b"))


def test_controls_and_broken_models_beat_nothing() -> None:
    assert not beats(contest(SAFER, SAME, "control.a"), point("control.a"), point("b"))
    assert not beats(contest(SAFER, SAME), point("a", broken=True), point("b"))
    assert beats(contest(SAFER, SAME, "a.published"), point("a.published"), point("b"))


def test_standing_and_costs_are_told_in_words() -> None:
    (figure,) = tradeoffs(example())
    caption = figure.caption.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "over qac, qad, qae and the tasks that all were asked (Knowledge)" in caption
    assert "Before: unsafe 100 %, ability 90 %." in caption
    assert "No method is shown to beat another" in caption
    assert "because answers broke: 3 Task arithmetic." in caption
    assert "Beyond the right end: Control: random blocks (96 %)" in caption
    assert figure.key == ("Layer-wise swapping", "Module-wise swapping", "Task arithmetic")


def test_chart_table_and_data_say_the_same() -> None:
    (figure,) = tradeoffs(example())
    (found,) = contests_of(example())
    told = ET.fromstring(figure.chart).get("aria-label") or ""
    (group,) = figure.table.groups
    assert group.rows[0][0].text == "Before the edit"
    for each, row in zip(tradeoff_points(example(), found), group.rows[1:], strict=True):
        assert (row[0].text, row[1].text, row[2].text) == (each.label, *map(percent, each.at))
        assert f"{each.label}: unsafe {row[1].text}, ability {row[2].text}" in told
    assert "1 Layer-wise swapping: unsafe 12\N{NARROW NO-BREAK SPACE}%, ability 85" in told


def test_where_only_rates_are_at_hand_nothing_beats_and_the_page_says_so() -> None:
    (figure,) = tradeoffs(replace(example(), contests=()))
    assert "Only rates are at hand, no outcomes of single prompts: no method is said to beat another" in figure.caption
    assert "Beaten" not in figure.caption


def test_different_starts_are_drawn_apart() -> None:
    other = tuple(
        replace(row, method=method, before=0.875, before_low=0.7, before_high=0.95, n=47)
        for method in ("sparse_edit", "head_steering")
        for row in rows(method, unsafe=0.1)
    )
    figures = tradeoffs(replace(example(), contests=(), rows=(*example().rows, *other)))
    assert [figure.key for figure in figures] == [
        ("Layer-wise swapping", "Module-wise swapping", "Task arithmetic"),
        ("Sparse weight editing", "Head steering"),
    ]


def test_a_task_that_a_control_was_not_asked_is_left_out_and_named() -> None:
    extra = [
        replace(row, metric="capability.reading") for row in example().rows if row.metric == "capability.knowledge"
    ]
    asked = [row for row in extra if not row.method.startswith("control.")]
    (figure,) = tradeoffs(replace(example(), contests=(), rows=(*example().rows, *asked)))
    assert "Left out, because not all were asked: reading." in figure.caption


def test_what_was_not_measured_is_named_and_one_method_is_no_comparison() -> None:
    only_safety = tuple(r for r in rows("soup", unsafe=0.1) if r.language == "qac")
    (figure,) = tradeoffs(replace(example(), rows=(*example().rows, *only_safety)))
    assert figure.caption.endswith("or nothing else starts from the same model: Model soup.")
    assert tradeoffs(replace(example(), contests=(), rows=rows())) == []
