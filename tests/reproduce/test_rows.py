"""Rows against those of a repetition: what is noise, what is drift, what is another result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.reproduce.finding import Finding, Severity, exit_code
from polysafe.reproduce.rows import compare_rows
from polysafe.stats.compare import compare_outcomes
from polysafe.stats.intervals import wilson
from polysafe.stats.rows import Row


@st.composite
def results(draw: st.DrawFn) -> list[Row]:
    """Rows as polysafe makes them, from outcomes of single items."""
    languages = draw(st.lists(st.sampled_from(["en", "sw", "bn", "te"]), min_size=1, unique=True))
    n = draw(st.integers(0, 40))
    answers = st.lists(st.booleans(), min_size=n, max_size=n)
    before, after = (
        {(lang, "unsafe"): dict(zip(map(str, range(n)), draw(answers), strict=True)) for lang in languages}
        for _ in range(2)
    )
    return compare_outcomes("edit", before, after)


def severities(findings: Sequence[Finding]) -> set[Severity]:
    return {finding.severity for finding in findings}


@given(results(), st.randoms())
def test_the_same_rows_in_any_order_are_the_same(rows: list[Row], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert list(compare_rows(rows, shuffled)) == []


@given(results(), st.data())
def test_a_missing_row_and_another_one_are_results(rows: list[Row], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(rows) - 1))
    fewer = rows[:index] + rows[index + 1 :]
    (gone,), (come,) = list(compare_rows(rows, fewer)), list(compare_rows(fewer, rows))
    assert gone.severity is come.severity is Severity.RESULT
    assert rows[index].language in gone.what
    assert (gone.recorded, gone.found) == (come.found, come.recorded)


@given(st.integers(1, 400), st.data())
def test_a_rate_is_drift_exactly_within_its_recorded_interval(n: int, data: st.DataObject) -> None:
    old, new = (data.draw(st.integers(0, n)) for _ in range(2))
    span = wilson(old, n)
    assert span is not None
    findings = list(compare_rows([_row(old, n)], [_row(new, n)]))
    if old == new:
        assert findings == []
    else:
        inside = span.low <= new / n <= span.high
        assert severities(findings) == {Severity.DRIFT if inside else Severity.RESULT}
        assert exit_code(findings) == 1


def _row(count: int, n: int) -> Row:
    span = wilson(count, n)
    assert span is not None
    return Row("edit", "sw", "unsafe", 0.0, count / n, n, 0.0, 1.0, span.low, span.high)


@given(results(), st.integers(1, 3))
def test_the_last_digits_are_drift_and_seen(rows: list[Row], steps: int) -> None:
    def nudged(value: float | None) -> float | None:
        if value is None:
            return None
        for _ in range(steps):
            value = math.nextafter(value, 0.0)
        return value

    moved = [
        replace(row, p_value=nudged(row.p_value), before_low=nudged(row.before_low), after_low=nudged(row.after_low))
        for row in rows
    ]
    findings = list(compare_rows(rows, moved))
    assert severities(findings) <= {Severity.DRIFT}
    assert bool(findings) == (moved != rows)


@pytest.mark.parametrize(
    ("change", "severity"),
    [
        ({"n": 40}, Severity.RESULT),
        ({"after_low": 0.2}, Severity.RESULT),  # of the same rate and n: another way to compute an interval
        ({"after": None}, Severity.RESULT),
        ({"p_value": None}, Severity.RESULT),
        ({"p_value": 0.011}, Severity.DRIFT),
        ({"p_adjusted": 0.039}, Severity.DRIFT),
        ({"p_adjusted": 0.051}, Severity.RESULT),  # what was significant is not any more
        ({"p_adjusted": None}, Severity.RESULT),
    ],
)
def test_what_a_change_of_one_number_is(change: dict[str, float | None], severity: Severity) -> None:
    row = Row("edit", "sw", "unsafe", 0.5, 0.25, 48, 0.36, 0.64, 0.15, 0.39, 0.01, 0.04)
    (finding,) = compare_rows([row], [replace(row, **change)])  # type: ignore[arg-type]
    assert finding.severity is severity
    assert finding.recorded != finding.found
