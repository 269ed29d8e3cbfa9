from __future__ import annotations

from dataclasses import replace

import pytest

from polysafe.report.sections.broken import broken_maps
from polysafe.report.sections.categories import category_maps
from polysafe.report.sections.touched import size, touched_groups, touched_table
from polysafe.stats import Row
from polysafe.text.readable import percent_number, points
from tests.report.examples import CATEGORIES, LOW, audit_example, example


def test_categories_with_most_unsafe_answers_come_first() -> None:
    after, change = category_maps(example())
    names = [name for name, _ in after.rows]
    assert names == ["(no category)", "violence", "fraud and theft", "self-harm"]
    assert [name for name, _ in change.rows] == names


def test_cells_are_the_data() -> None:
    data = example()
    after, change = category_maps(data)
    for name, cells in after.rows:
        rows = {row.language: row for row in data.categories["none" if name == "(no category)" else name]}
        for code, cell in zip(LOW, cells, strict=True):
            assert cell is not None
            assert (cell.text, cell.note, cell.heat) == (percent_number(rows[code].after), "n 12", rows[code].after)
    for name, cells in change.rows:
        rows = {row.language: row for row in data.categories["none" if name == "(no category)" else name]}
        for code, cell in zip(LOW, cells, strict=True):
            assert cell is not None
            assert cell.text == points(rows[code].difference)
            assert cell.tone == ("good" if cell.text.startswith("\N{MINUS SIGN}") else "bad")


def test_every_cell_has_its_interval_in_the_table() -> None:
    after, _ = category_maps(example())
    assert after.table is not None
    assert [len(group.rows) for group in after.table.groups] == [3] * len(CATEGORIES)
    assert after.table.groups[-1].rows[0][1].text == "92 → 0\N{NARROW NO-BREAK SPACE}%"
    assert "65–99 → 0–24" in after.table.groups[-1].rows[0][1].notes


def test_an_audit_has_its_own_categories_and_a_method_without_any_has_none() -> None:
    (found,) = category_maps(audit_example())
    assert found.columns == ("English (en)", "العربية (ar)", "Swahili (sw)")
    assert dict(found.rows)["violence"][2] is not None
    assert category_maps(replace(example(), headline="layer_swap.layer")) == []


def test_a_category_without_items_in_a_language_is_an_empty_cell() -> None:
    undefined = Row("layer_swap.module", "qac", "unsafe", None, None, 0)
    found, _ = category_maps(replace(example(), categories={"fraud": (undefined,)}))
    assert found.rows == (("fraud", (None,)),)


def test_broken_answers_are_shown_before_and_after() -> None:
    broken, truncated = broken_maps(replace(example(), headline="task_arithmetic"))
    assert broken.columns == ("Broken",)
    for _, (cell,) in broken.rows:
        assert cell is not None
        assert cell.text == "0 → 71"
        assert cell.note == "0–7 → 57–82, n 48"
        assert cell.heat == pytest.approx(34 / 48)
    assert truncated.columns == ("base", "layer_swap.module")
    assert truncated.rows[0][0] == "English (en)"


def test_an_audit_shows_its_broken_answers() -> None:
    (found,) = broken_maps(audit_example())
    cells = [cell for _, (cell,) in found.rows]
    assert [cell.text for cell in cells if cell] == ["0", "2", "12"]


def test_sizes_and_hashes_of_edits() -> None:
    methods = [touched.method for touched in example().touched]
    table = touched_table(example(), methods)
    assert table is not None
    (swap,) = table.groups[0].rows
    assert [cell.text for cell in swap[:5]] == ["Conlang C (qac)", "50\N{NARROW NO-BREAK SPACE}%", "30", "12.3 kB", "–"]
    (heads,) = table.groups[2].rows
    assert heads[1].text == "0.011\N{NARROW NO-BREAK SPACE}%"
    assert heads[4].text == "8 heads"
    one = touched_table(example(), methods[:1])
    assert one is not None
    assert one.groups == table.groups[:1]
    assert touched_table(audit_example(), methods) is None


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (12_345, "12.3 kB"), (16_060_522_496, "16.1 GB")]
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


def test_neurons_per_layer_in_chart_and_table() -> None:
    sparse, _ = touched_groups(example())
    assert sparse.heading == "Sparse weight editing, all languages"
    (figure,) = sparse.figures
    assert "layer 1: 16 of 64; layer 3: 11 of 64; layer 4: 10 of 64" in figure.chart
    (group,) = figure.table.groups
    assert [(row[0].text, row[1].text) for row in group.rows] == [
        ("layer 1, mlp", "16"),
        ("layer 3, mlp", "11"),
        ("layer 4, mlp", "10"),
    ]
    assert group.rows[0][2].text == "0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44 and 4 more"


def test_overlap_is_symmetric_with_ones_where_a_language_meets_itself() -> None:
    sparse, _ = touched_groups(example())
    assert sparse.overlap is not None
    cells = [[cell.text if cell else None for cell in cells] for _, cells in sparse.overlap.rows]
    assert cells == [["1.00", "0.25", "0.50"], ["0.25", "1.00", "0.00"], ["0.50", "0.00", "1.00"]]
    notes = [[cell.note if cell else None for cell in cells] for _, cells in sparse.overlap.rows]
    chance = "chance 0.20 (0.12\N{EN DASH}0.30)"
    assert notes == [["", chance, ""], [chance, "", ""], ["", "", ""]]
    assert "hypergeometric" in sparse.overlap.caption
    bare = replace(example(), touched=tuple(replace(each, chance={}) for each in example().touched))
    overlap = touched_groups(bare)[0].overlap
    assert overlap is not None
    assert "What chance would give is not known" in overlap.caption


def test_heads_are_outlined_and_the_strongest_named() -> None:
    _, heads = touched_groups(example())
    (figure,) = heads.figures
    assert "8 of 32 heads in 4 layers are chosen" in figure.chart
    assert "layer 0 head 5: +0.5; layer 1 head 5: +0.4; layer 2 head 5: +0.3." in figure.caption
    outlines = [line for line in figure.chart.replace("\n", " ").split("<path ") if "fill: none" in line]
    assert sum(line.count("M ") for line in outlines if "stroke: var(--ink)" in line) == 8
