"""Maps of broken answers: of an edit before and after, of an audit, and of answers that were cut off."""

from __future__ import annotations

from dataclasses import replace

from polysafe.report.sections.broken import broken_maps
from polysafe.stats import RateRow, Row
from tests.report.examples import audit_example, example


def test_an_edit_shows_both_rates_with_their_intervals_and_items() -> None:
    edit, cut = broken_maps(example())
    assert edit.heading.startswith("Before")
    assert "the more after the edit" in edit.caption
    assert edit.columns == ("Broken",)
    assert [len(cells) for _, cells in edit.rows] == [1] * 3
    (cell,) = edit.rows[0][1]
    assert cell is not None
    assert cell.text.startswith("0 ")
    assert cell.note.endswith("n 48")
    assert cut.heading == "Cut off by the token budget"


def test_an_audit_shows_the_rates_of_its_model_in_the_order_of_tiers() -> None:
    (shown,) = broken_maps(audit_example())
    assert shown.heading == "base-7b"
    assert "after the edit" not in shown.caption
    assert [label for label, _ in shown.rows] == ["English (en)", "العربية (ar)", "Swahili (sw)"]
    assert [cell.heat for _, (cell,) in shown.rows if cell is not None] == [0.0, 0.02, 0.12]


def test_what_was_not_measured_is_an_empty_cell_and_what_no_language_has_is_no_column() -> None:
    audits = (RateRow("m", "sw", "invalid", 0.2, 10, 0.1, 0.4), RateRow("m", "en", "wrong_language", None, 0))
    (shown,) = broken_maps(replace(audit_example(), audits=audits))
    assert shown.columns == ("Broken", "Wrong language")
    cells = {label: [cell is not None for cell in cells] for label, cells in shown.rows}
    assert cells == {"English (en)": [False, False], "Swahili (sw)": [True, False]}


def test_without_broken_answers_there_is_no_map() -> None:
    unsafe = tuple(row for row in audit_example().audits if row.metric == "unsafe")
    assert broken_maps(replace(audit_example(), audits=unsafe)) == []
    rows = (Row("m", "sw", "unsafe", 0.5, 0.1, 10),)
    assert broken_maps(replace(audit_example(), rows=rows, headline="m")) == []
