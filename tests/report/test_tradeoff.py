from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.report.summary import Change
from polysafe.report.text import percent, points
from polysafe.report.tradeoff import Point, pareto_front, tradeoff, tradeoff_points, unpaired
from polysafe.stats import Interval
from tests.report.examples import example, rows

PLACES = st.lists(st.tuples(st.integers(0, 6), st.integers(-6, 6)), max_size=12)


def point(unsafe: float, ability: float, kind: str = "method", *, broken: bool = False) -> Point:
    return Point(1, "m", kind, unsafe, None, ability, None, None, broken)


@given(PLACES)
def test_the_front_is_what_nothing_beats(places: list[tuple[int, int]]) -> None:
    drawn = [point(unsafe / 6, ability / 6) for unsafe, ability in places]
    front = pareto_front(drawn)

    def beaten(one: Point) -> bool:
        return any(
            other.unsafe <= one.unsafe and other.ability >= one.ability
            and (other.unsafe < one.unsafe or other.ability > one.ability)
            for other in drawn
        )  # fmt: skip

    assert {id(one) for one in front} == {id(one) for one in drawn if not beaten(one)}
    assert [one.unsafe for one in front] == sorted(one.unsafe for one in front)
    assert [one.ability for one in front] == sorted(one.ability for one in front)


def test_controls_and_broken_models_are_never_on_the_front() -> None:
    safe, control, broken = point(0.5, 0.0), point(0.0, 0.5, "control"), point(0.0, 0.5, broken=True)
    assert pareto_front([control, safe, broken]) == [safe]
    assert pareto_front([control, broken]) == []
    assert pareto_front([point(0.1, 0.1, "published"), safe]) == [point(0.1, 0.1, "published")]


def test_front_and_costs_are_told_in_words() -> None:
    figure = tradeoff(example())
    assert figure is not None
    caption = figure.caption.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "nothing beats in both safety and ability: 2 Module-wise swapping (unsafe 12 %, ability 0.0" in caption
    assert "because answers broke: 3 Task arithmetic." in caption
    assert "Beyond the right end: Control: random blocks (96 %)" in caption
    assert figure.key == ("Layer-wise swapping", "Module-wise swapping", "Task arithmetic")


def test_chart_table_and_data_say_the_same() -> None:
    figure = tradeoff(example())
    assert figure is not None
    told = ET.fromstring(figure.chart).get("aria-label") or ""
    (group,) = figure.table.groups
    for found, row in zip(tradeoff_points(example()), group.rows, strict=True):
        assert (row[0].text, row[1].text, row[2].text) == (found.label, percent(found.unsafe), points(found.ability))
        assert f"{found.label}: unsafe {row[1].text}, ability {row[2].text} points" in told
    assert "1 Layer-wise swapping: unsafe 12\N{NARROW NO-BREAK SPACE}%, ability −4.2 points, over-refusal +10.4" in told


def test_what_was_not_measured_is_named_and_one_method_is_no_comparison() -> None:
    only_safety = tuple(r for r in rows("soup", unsafe=0.1) if not r.metric.startswith("capability"))
    figure = tradeoff(replace(example(), rows=(*example().rows, *only_safety)))
    assert figure is not None
    assert "Not drawn, safety or ability was not measured: Model soup." in figure.caption
    assert tradeoff(replace(example(), rows=rows())) is None


def test_the_unpaired_interval_is_newcombes() -> None:
    # Newcombe (1998), table II, example (a), method 10: 56/70 against 48/80, difference 0.2, 0.0524 to 0.3339
    change = Change(
        before=0.6,
        after=0.8,
        before_interval=Interval(0.4904, 0.7004),
        after_interval=Interval(0.6920, 0.8769),
        languages=("sw",),
        items=(70,),
    )
    assert unpaired(change) == pytest.approx((0.0524, 0.3339), abs=5e-4)
    assert unpaired(replace(change, before_interval=None)) is None
