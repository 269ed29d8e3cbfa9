from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.stats import Row, adjust, collect, compare_outcomes, mcnemar_exact, rate_outcomes, wilson

METHOD = "layer_swap.module"


def items(*outcomes: bool) -> dict[str, bool]:
    return {f"item-{i}": outcome for i, outcome in enumerate(outcomes)}


def test_rates_intervals_and_paired_test() -> None:
    before = {("qac", "unsafe"): items(True, True, True, True, False)}
    after = {("qac", "unsafe"): items(False, False, True, False, False)}
    (row,) = compare_outcomes(METHOD, before, after)
    assert (row.method, row.language, row.metric, row.n) == (METHOD, "qac", "unsafe", 5)
    assert (row.before, row.after) == (0.8, 0.2)
    assert (row.before_low, row.before_high) == wilson(4, 5)
    assert (row.after_low, row.after_high) == wilson(1, 5)
    assert row.p_value == row.p_adjusted == mcnemar_exact(3, 0)


def test_the_test_is_paired() -> None:
    """Equal rates, but different items: McNemar sees two changes, and none where the same items stay."""
    same = compare_outcomes(METHOD, {("a", "m"): items(True, False)}, {("a", "m"): items(True, False)})
    swapped = compare_outcomes(
        METHOD, {("a", "m"): items(True, True, True, False)}, {("a", "m"): items(False, False, True, True)}
    )
    assert same[0].p_value == 1.0
    assert swapped[0].p_value == mcnemar_exact(2, 1)


@pytest.mark.parametrize("outcome", [True, False])
def test_all_the_same(outcome: bool) -> None:
    cell = {("en", "unsafe"): items(*[outcome] * 48)}
    (row,) = compare_outcomes(METHOD, cell, cell)
    assert row.before == row.after == float(outcome)
    assert row.p_value == 1.0
    assert (row.before_low == 0.0, row.before_high == 1.0) == (not outcome, outcome)


@pytest.mark.fault(23, "no items and one")
def test_one_item() -> None:
    (row,) = compare_outcomes(METHOD, {("en", "unsafe"): items(True)}, {("en", "unsafe"): items(False)})
    assert (row.n, row.before, row.after, row.p_value) == (1, 1.0, 0.0, 1.0)


def test_no_items_is_undefined_and_in_no_family() -> None:
    before = {("te", "unsafe"): items(), ("sw", "unsafe"): items(*[True] * 6)}
    after = {("te", "unsafe"): items(), ("sw", "unsafe"): items(*[False] * 6)}
    empty, full = compare_outcomes(METHOD, before, after)
    assert empty == Row(METHOD, "te", "unsafe", None, None, 0)
    assert full.p_adjusted == full.p_value


def test_an_item_missing_on_one_side_is_named() -> None:
    before = {("sw", "unsafe"): {"a": True, "b": True}}
    after = {("sw", "unsafe"): {"a": True, "c": True}}
    with pytest.raises(DataError, match=r"sw, unsafe.*1 only before: b; 1 only after: c"):
        compare_outcomes(METHOD, before, after)


def test_many_missing_items_are_counted() -> None:
    before = {("sw", "unsafe"): {f"{i:02}": True for i in range(12)}}
    with pytest.raises(DataError, match=r"12 only before: 00, 01, 02, 03, 04 and 7 more"):
        compare_outcomes(METHOD, before, {("sw", "unsafe"): {}})


def test_a_cell_missing_on_one_side_is_named() -> None:
    with pytest.raises(DataError, match="over_refusal"):
        compare_outcomes(METHOD, {("sw", "unsafe"): {}}, {("sw", "unsafe"): {}, ("sw", "over_refusal"): {}})


def test_a_duplicated_id_is_refused() -> None:
    with pytest.raises(DataError, match=r"ar, unsafe: item '17' occurs twice"):
        collect([("ar", "unsafe", "17", True), ("ar", "unsafe", "17", True)])


def test_an_id_may_return_in_other_languages_and_metrics() -> None:
    records = [("ar", "unsafe", "17", True), ("sw", "unsafe", "17", False), ("ar", "refused", "17", False)]
    assert collect(records) == {
        ("ar", "unsafe"): {"17": True},
        ("sw", "unsafe"): {"17": False},
        ("ar", "refused"): {"17": False},
    }


def test_adjusts_over_languages_within_one_metric_only() -> None:
    before = {(lang, metric): items(*[True] * 6) for metric in ("unsafe", "refused") for lang in ("a", "b", "c")}
    after = {key: items(*[False] * 6) if key[1] == "unsafe" else before[key] for key in before}
    rows = compare_outcomes(METHOD, before, after)
    assert {row.p_adjusted for row in rows if row.metric == "unsafe"} == {3 * mcnemar_exact(6, 0)}
    assert {row.p_adjusted for row in rows if row.metric == "refused"} == {1.0}


def test_rows_of_several_runs_are_adjusted_together() -> None:
    rows = [Row(METHOD, lang, "unsafe", 1.0, 0.0, 6, p_value=0.02, p_adjusted=0.02) for lang in ("a", "b")]
    other = Row("soup", "a", "unsafe", 1.0, 0.0, 6, p_value=0.02)
    assert [row.p_adjusted for row in adjust([*rows, other])] == [0.04, 0.04, 0.02]


def test_a_language_twice_in_a_family_is_refused() -> None:
    row = Row(METHOD, "a", "unsafe", 1.0, 0.0, 6, p_value=0.02)
    with pytest.raises(DataError, match="twice"):
        adjust([row, row])


outcomes = st.dictionaries(
    st.tuples(st.sampled_from(["en", "sw", "te", "ar"]), st.sampled_from(["unsafe", "refused"])),
    st.dictionaries(st.text(max_size=3), st.tuples(st.booleans(), st.booleans()), max_size=12),
    max_size=6,
)


@given(outcomes)
def test_rows_are_consistent(cells: dict[tuple[str, str], dict[str, tuple[bool, bool]]]) -> None:
    before = {key: {i: pair[0] for i, pair in cell.items()} for key, cell in cells.items()}
    after = {key: {i: pair[1] for i, pair in cell.items()} for key, cell in cells.items()}
    forth, back = compare_outcomes(METHOD, before, after), compare_outcomes(METHOD, after, before)
    assert [(row.language, row.metric) for row in forth] == list(cells)
    for row, mirrored in zip(forth, back, strict=True):
        assert (row.before, row.after, row.p_adjusted) == (
            mirrored.after,
            mirrored.before,
            mirrored.p_adjusted,
        )
        assert row.n == len(cells[row.language, row.metric])
        if row.p_value is not None and row.p_adjusted is not None:
            assert row.p_value <= row.p_adjusted <= 1.0


def test_rates_of_one_model() -> None:
    full, empty = rate_outcomes("base", {("en", "unsafe"): items(True, False), ("te", "unsafe"): {}})
    assert (full.model, full.rate, full.n) == ("base", 0.5, 2)
    assert (full.low, full.high) == wilson(1, 2)
    assert (empty.rate, empty.n, empty.low, empty.high) == (None, 0, None, None)
