from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from polysafe.report.charts.figures import Bar, Dumbbell, bar_chart, dumbbell_chart
from polysafe.stats import Interval

SPAN = Interval(0.1, 0.4)


def line(label: str = "Conlang C", note: str = "unsafe 90", before: float = 0.9, after: float = 0.2) -> Dumbbell:
    return Dumbbell(label, note, before, after, Interval(0.8, 0.97), SPAN)


def both(label: str, note: str) -> list[str]:
    return [
        bar_chart([Bar(label, note, 0.25, SPAN, 0.5)], label),
        dumbbell_chart([line(label, note)], label, reference=0.0),
    ]


def test_is_well_formed_and_says_what_it_shows() -> None:
    for chart in both("Swahili", "unsafe 25 %"):
        root = ET.fromstring(chart)
        assert root.get("role") == "img"
        assert root.get("aria-label") == "Swahili"
        texts = [element.text for element in root.iter("text")]
        assert "Swahili" in texts
        assert "unsafe 25 %" in texts


def test_the_same_data_gives_the_same_bytes() -> None:
    assert both("a", "b") == both("a", "b")


def test_carries_no_address_id_font_date_or_fixed_colour() -> None:
    for chart in both("a", "b"):
        assert not re.search(r"https?:|\bid=|url\(|font-family|<style|<metadata|#[0-9a-f]{6}|\d{4}-\d\d-\d\d", chart)


def test_text_is_data() -> None:
    """Every hostile answer is the label of charts in `tests/attacks`."""
    text = "</text></svg><svg onload=x><script>\u0000$x$"
    for chart in both(text, text):
        root = ET.fromstring(chart)
        assert {element.tag for element in root.iter()} <= {"svg", "g", "path", "text"}
        assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]


def test_scripts_that_the_font_lacks_are_no_warning() -> None:
    (chart, _) = both("বাংলা العربية 中文", "$x^2$")
    assert "বাংলা العربية 中文" in chart
    assert "$x^2$" in chart


def test_positions_follow_the_rates() -> None:
    def starts(chart: str) -> set[float]:
        return {float(x) for x in re.findall(r'd="M ([\d.]+) ', chart)}

    assert 8 + 0.25 * 324 in starts(bar_chart([Bar("a", "b", 0.5, Interval(0.25, 0.75), None)], ""))


def test_colour_follows_the_direction() -> None:
    better = dumbbell_chart([line(before=0.9, after=0.2)], "")
    worse = dumbbell_chart([line(before=0.2, after=0.3)], "")
    same = dumbbell_chart([line(before=0.3, after=0.3)], "")
    assert "var(--refused)" in better
    assert "var(--unsafe)" not in better
    assert "var(--unsafe)" in worse
    assert not re.search(r"var\(--(refused|unsafe)\)", same)


def test_without_intervals_and_without_refusals() -> None:
    chart = bar_chart([Bar("a", "b", 0.0, None, None)], "")
    assert "var(--neither)" not in chart
    ET.fromstring(dumbbell_chart([Dumbbell("a", "b", 0.0, 1.0, None, None)], ""))


def test_a_long_label_makes_room_for_its_note() -> None:
    chart = dumbbell_chart([line("L" * 200, "unsafe 100, refused 0")], "")
    (label,) = re.findall(r">(L+…)<", chart)
    assert len(label) < 30
