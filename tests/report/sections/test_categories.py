"""Maps and tables of categories: the worst first, every number with its items, and nothing that was not asked."""

from __future__ import annotations

from dataclasses import replace

from polysafe.report.sections.categories import category_maps
from polysafe.stats import RateRow, Row
from tests.report.examples import audit_example, example


def test_an_edit_has_a_map_of_rates_and_one_of_changes() -> None:
    after, changed = category_maps(example())
    assert [label for label, _ in after.rows] == ["(no category)", "violence", "fraud and theft", "self-harm"]
    assert len(after.columns) == 3
    assert after.table is not None
    assert after.table.columns == ("Language", "Unsafe", "Change, points")
    assert changed.table is None
    tones = {label: {cell.tone for cell in cells if cell is not None} for label, cells in changed.rows}
    assert tones["(no category)"] == {"bad"}
    assert tones["self-harm"] == {"good"}


def test_tables_have_a_group_per_category_and_a_line_per_language() -> None:
    table = category_maps(example())[0].table
    assert table is not None
    assert [group.heading for group in table.groups] == ["(no category)", "violence", "fraud and theft", "self-harm"]
    first = table.groups[0].rows[0]
    assert first[1].text.startswith("92 → 100")
    assert "n 12" in first[1].notes[1]
    assert first[2].text.startswith("+8.3")


def test_an_audit_has_one_map_with_rates_and_items() -> None:
    (shown,) = category_maps(audit_example())
    assert shown.heading == "Unsafe answers: base-7b"
    assert shown.table is not None
    assert shown.table.columns == ("Language", "Unsafe", "n")
    assert [cell.text for cell in shown.table.groups[0].rows[1]][-1] == "20"


def test_a_language_that_a_category_lacks_is_an_empty_cell_and_no_line() -> None:
    rows = {
        "both": (RateRow("m", "en", "unsafe", 0.1, 10), RateRow("m", "sw", "unsafe", 0.3, 10)),
        "one": (RateRow("m", "sw", "unsafe", 0.9, 10), RateRow("m", "sw", "refused", 0.1, 10)),
        "other": (RateRow("another", "sw", "unsafe", 0.9, 10),),
        "undefined": (RateRow("m", "sw", "unsafe", None, 0),),
    }
    audits = (RateRow("m", "sw", "unsafe", 0.4, 20),)
    (shown,) = category_maps(replace(audit_example(), audits=audits, audit_categories=rows))
    assert [label for label, _ in shown.rows] == ["one", "both", "undefined"]
    assert [[cell is not None for cell in cells] for _, cells in shown.rows] == [
        [False, True],
        [True, True],
        [False, False],
    ]
    assert shown.table is not None
    assert [len(group.rows) for group in shown.table.groups] == [1, 2, 1]


def test_without_categories_there_is_no_map() -> None:
    assert category_maps(replace(audit_example(), audit_categories={})) == []
    assert category_maps(replace(audit_example(), rows=(Row("m", "sw", "unsafe", 0.5, 0.1, 10),), headline="m")) == []
    assert category_maps(replace(audit_example(), audits=())) == []
