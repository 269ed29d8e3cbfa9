"""The terminal says what the page says."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from polysafe.evaluate.audited import read_audit
from polysafe.evaluate.compare import compare_runs
from polysafe.findings.data import CorrectedRate, ReportData
from polysafe.findings.runs import audit_report, comparison_report
from polysafe.report.html import render
from polysafe.report.screen import TOY_NOTICE, aligned, as_text, first_screen
from polysafe.text.readable import ARROW, percent_number
from tests.findings.test_runs import run
from tests.report.examples import example


def page_text(data: ReportData) -> str:
    """What a reader of the page can find, on one line."""
    return " ".join(html.unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", render(data), flags=re.DOTALL)).split())


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    folder = tmp_path_factory.mktemp("runs")
    return comparison_report([compare_runs(run(folder / "a", 12), run(folder / "b", 3), "layer_swap.module")])


@pytest.mark.parametrize("made", ["example", "compared"])
def test_every_number_of_the_terminal_is_on_the_page(made: str, compared: ReportData) -> None:
    data = example() if made == "example" else compared
    screen, page = first_screen(data), page_text(data)
    assert one_line(screen.sentence) in page
    assert one_line(screen.evidence) in page
    assert screen.label in page
    means, languages, paid, *_ = screen.tables
    for row in means.rows:
        assert all(one_line(cell) in page for cell in row)
    for row in languages.rows:
        assert all(one_line(cell) in page for cell in row[:5])
        # The page has the gaps before and after in cells of their own.
        assert all(end in page for cell in row[5:] for end in one_line(cell).split(f" {ARROW} "))
    for row in paid.rows:
        assert all(one_line(cell) in page for cell in row)


def test_rates_and_gaps_are_those_of_the_data(compared: ReportData) -> None:
    table = first_screen(compared).tables[1]
    lines = {line[0].partition(",")[0]: line for line in table.rows}
    row = next(r for r in compared.rows if (r.language, r.metric) == ("sw", "unsafe"))
    line = lines["Swahili (sw)"]
    assert line[1].startswith(f"{percent_number(row.before)} {ARROW} {percent_number(row.after)}")
    assert line[3] == str(row.n)
    gap = next(g for g in compared.gaps if (g.before.language, g.before.metric) == ("sw", "unsafe"))
    assert line[5] == f"+{100 * (gap.before.difference or 0):.1f} {ARROW} +{100 * (gap.after.difference or 0):.1f}"
    assert lines["English (en)"][5] == ""


def test_broken_wrong_and_unread_answers_are_beside_the_others(compared: ReportData) -> None:
    table = first_screen(compared).tables[2]
    assert [column.removeprefix(">").lower() for column in table.columns] == [
        "language", "over-refusal", "broken", "wrong language", "unparsed",
    ]  # fmt: skip
    bengali = next(row for row in table.rows if row[0].startswith("Bengali"))
    assert one_line(bengali[-1]) == f"7 {ARROW} 7 %"


def test_an_audit_says_rates_and_gaps(compared: ReportData, tmp_path: Path) -> None:
    data = audit_report(read_audit(run(tmp_path / "m", 12)))
    screen = first_screen(data)
    line = next(row for row in screen.tables[0].rows if row[0].startswith("Swahili"))
    rate = next(row for row in data.audits if (row.language, row.metric) == ("sw", "unsafe"))
    assert one_line(line[1]) == f"{percent_number(rate.rate)} %"
    assert line[4] == "+40.0"
    page = page_text(data)
    assert all(one_line(cell) in page for cell in line[:4])


def test_methods_stand_side_by_side_without_controls() -> None:
    (table,) = [table for table in first_screen(example()).tables if table.title.startswith("Methods")]
    assert [row[0] for row in table.rows] == ["Layer-wise swapping", "Module-wise swapping", "Task arithmetic"]
    assert [row[1] for row in table.rows][-1] == "Broken, not repaired"


def test_corrected_rates_are_told(compared: ReportData) -> None:
    corrected = CorrectedRate("layer_swap.module", "sw", 0.2, 0.25, 0.1, 0.4, 30)
    (table,) = [
        table
        for table in first_screen(replace(compared, corrected=(corrected,))).tables
        if "measured error" in table.title
    ]
    assert [one_line(cell) for cell in table.rows[0][2:]] == ["20 %", "25 %", "10–40", "30"]


def test_the_toy_family_is_never_shown_without_its_notice() -> None:
    assert TOY_NOTICE in as_text(first_screen(example()))
    assert TOY_NOTICE not in as_text(first_screen(example(toy=False)))


def test_columns_line_up_in_every_script() -> None:
    lines = aligned(("name", ">n"), [("日本語", "1"), ("ab", "1000")]).splitlines()
    assert lines == ["name       n", "──────  ────", "日本語     1", "ab      1000"]
