"""The page shows what was tried on validation prompts beside what that did on held-out ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polysafe.findings.choosing import Choosing, Gain, Tried
from polysafe.findings.data import ReportData
from polysafe.report.html import render
from polysafe.report.sections.choosing import choosing_sentences, choosing_table
from polysafe.stats.rows import Row
from polysafe.text.readable import NOTHING, change

ROW = Row("soup", "sw", "unsafe", 0.9, 0.2, 50, 0.8, 0.95, 0.1, 0.3, 0.001, 0.001)
JUDGED = Gain("sw", 24, counted=True, before=0.1, after=0.6, low=0.3, high=0.65)
READ = Gain("sw", 24, counted=False, before=-1.5, after=0.25, low=1.5, high=2.0)
TAKEN = Tried("soup", 1, (JUDGED,), {"over_refusal": 0.01, "kl": 0.01, "size": 0.5}, taken=True)
OTHER = Tried("band_swap", 12, (READ,), {"over_refusal": 0.5}, "costs more than the constraints allow: kl in sw")
DATA = ReportData(
    "title",
    (ROW,),
    toy=False,
    tiers={"en": "pivot", "sw": "low"},
    choosing=(Choosing("sw", "it gains most", (TAKEN, OTHER)),),
)


def test_units_are_those_that_were_read() -> None:
    table = choosing_table(DATA)
    assert table is not None
    ((taken, other),) = (group.rows for group in table.groups)
    assert taken[1].text == change(0.1, 0.6)
    assert taken[1].notes == ("+30.0 to +65.0 points, n 24",)
    assert "log-odds" in other[1].text
    assert taken[2].notes[0].endswith("+1.0 points")
    assert other[2].notes == ("over-refusal +0.500 log-odds",)


def test_what_was_taken_and_what_was_refused_is_said() -> None:
    table = choosing_table(DATA)
    assert table is not None
    ((taken, other),) = (group.rows for group in table.groups)
    assert taken[0].notes == ("taken",)
    assert other[0].notes == ("best of 12 settings", OTHER.verdict)
    assert "n 50" in taken[3].notes[0]
    assert other[3].text == NOTHING
    assert choosing_sentences(DATA) == ["sw: Model soup. It gains most."]
    nothing = replace(DATA, choosing=(Choosing("sw", "none helps", (OTHER,)),))
    assert choosing_sentences(nothing) == ["sw: nothing. None helps."]


@pytest.mark.parametrize(("data", "there"), [(DATA, True), (replace(DATA, choosing=()), False)])
def test_the_section_is_there_only_where_something_was_tried(data: ReportData, *, there: bool) -> None:
    assert ('<section id="choosing">' in render(data)) == there


def test_text_of_others_is_escaped() -> None:
    hostile = Choosing("<b>", "<script>", (Tried("<i>", 1, verdict="<img>"),))
    page = render(replace(DATA, choosing=(hostile,)))
    assert not any(
        f"<{tag}>" in page.split('id="choosing"')[1].split("</section>")[0] for tag in ("b", "script", "i", "img")
    )
