from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from polysafe.findings.gather import Answered, Findings, Pair
from polysafe.findings.summary import Scope, headline_method, methods_of, significance, summarise
from polysafe.report import ReportData
from polysafe.stats import Row, mean_interval, wilson
from tests.report.examples import LOW, TIERS, example, flat, measured, outcomes, rows

SCOPE = Scope(LOW, "low-resource")


def report(results: Iterable[Row]) -> ReportData:
    return ReportData("t", tuple(results), toy=False, tiers=TIERS)


def test_means_over_the_languages_in_scope_only() -> None:
    results = [
        Row("m", "en", "unsafe", 0.0, 0.0, 48),
        Row("m", "qac", "unsafe", 1.0, 0.5, 48),
        Row("m", "qad", "unsafe", 0.5, 0.0, 48),
        Row("other", "qad", "unsafe", 0.0, 0.0, 48),
    ]
    unsafe = summarise(report(results), "m", SCOPE).unsafe
    assert unsafe is not None
    assert (unsafe.before, unsafe.after, unsafe.difference) == (0.75, 0.25, -0.5)
    assert unsafe.languages == ("qac", "qad")


def test_a_language_without_items_is_left_out_and_named() -> None:
    results = [Row("m", "qac", "unsafe", 1.0, 0.5, 48), Row("m", "qad", "unsafe", None, None, 0)]
    summary = summarise(report(results), "m", SCOPE)
    assert summary.unmeasured == ("qad", "qae")
    assert summary.unsafe is not None
    assert summary.unsafe.after == 0.5


def test_intervals_of_means_count_each_prompt_once() -> None:
    """Three languages that always agree are worth one; rows alone cannot tell, and give the same width."""
    data = measured({"unsafe": 0.125}, n=48)
    unsafe, found = summarise(data, "layer_swap.module", SCOPE).unsafe, wilson(6, 48)
    assert unsafe is not None
    assert unsafe.after_interval is not None
    assert found is not None
    assert unsafe.after_interval.low == pytest.approx(found.low, abs=0.01)
    assert unsafe.pairs == pytest.approx(48, rel=0.1)
    assert unsafe.interval is not None
    assert unsafe.interval.low < unsafe.difference < unsafe.interval.high


def test_intervals_of_means_are_narrower_where_languages_do_not_agree() -> None:
    start = Answered("base", "en", outcomes(flat(unsafe=1.0), 1, n=200))
    found = Findings()
    found.add_method("m", [Pair(start, Answered("m", "en", outcomes(flat(unsafe=0.3), 2, n=200)), LOW)])
    data = found.data("t", toy=False, tiers=TIERS)
    unsafe = summarise(data, "m", SCOPE).unsafe
    alone = summarise(replace(data, means=()), "m", SCOPE).unsafe
    assert unsafe is not None
    assert alone is not None
    assert (unsafe.before, unsafe.after) == (alone.before, alone.after)
    narrow, wide = unsafe.after_interval, alone.after_interval
    assert narrow is not None
    assert wide is not None
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(3**0.5, rel=0.15)


def test_without_single_answers_intervals_are_means_of_intervals() -> None:
    unsafe = summarise(report(rows(unsafe=0.125)), "layer_swap.module", SCOPE).unsafe
    found = wilson(6, 48)
    assert unsafe is not None
    assert found is not None
    assert unsafe.after_interval == pytest.approx(mean_interval([found] * 3))


def test_no_interval_where_one_is_missing() -> None:
    results = [Row("m", "qac", "unsafe", 1.0, 0.5, 48, 0.9, 1.0, 0.4, 0.6), Row("m", "qad", "unsafe", 1.0, 0.5, 48)]
    unsafe = summarise(report(results), "m", SCOPE).unsafe
    assert unsafe is not None
    assert unsafe.before_interval is None
    assert unsafe.after_interval is None


def test_ability_is_the_mean_over_tasks_and_languages() -> None:
    results = [
        Row("m", "qac", "capability.reading", 1.0, 0.9, 10),
        Row("m", "qac", "capability.knowledge", 0.8, 0.8, 20),
        Row("m", "qad", "capability.reading", 0.6, 0.7, 10),
    ]
    capability = summarise(report(results), "m", SCOPE).capability
    assert capability is not None
    assert capability.before == pytest.approx(0.8)
    assert capability.after == pytest.approx(0.8)
    assert capability.items == (10, 20, 10)


@pytest.mark.parametrize(
    ("tiers", "languages", "kind"),
    [
        (TIERS, LOW, "low-resource"),
        ({"en": "pivot", "qac": "mid", "qad": "mid", "qae": "mid"}, LOW, "non-pivot"),
        (dict.fromkeys(LOW, "pivot"), LOW, "evaluated"),
        ({}, LOW, "non-pivot"),
    ],
)
def test_scope(tiers: dict[str, str], languages: tuple[str, ...], kind: str) -> None:
    assert Scope.of(replace(example(), tiers=tiers)) == Scope(languages, kind)


def test_methods_come_before_baselines_published_settings_and_controls() -> None:
    results = [
        Row(name, "qac", "unsafe", 1.0, 0.0, 4)
        for name in ("control.x", "sparse_edit.published", "soup", "layer_swap.layer", "band_swap", "my_method")
    ]
    assert methods_of(results) == [
        "layer_swap.layer",
        "my_method",
        "soup",
        "band_swap",
        "sparse_edit.published",
        "control.x",
    ]


def test_headline_is_the_one_named_else_the_first_method() -> None:
    data = example()
    assert headline_method(data) == "layer_swap.module"
    assert headline_method(replace(data, headline=None)) == "layer_swap.layer"
    assert headline_method(replace(data, headline="absent")) is None
    assert headline_method(replace(data, headline=None, rows=rows("control.x"))) is None


@pytest.mark.parametrize(
    ("before", "after", "p", "expected"),
    [(1.0, 0.0, 0.01, -1), (0.0, 1.0, 0.01, 1), (1.0, 0.0, 0.05, 0), (1.0, 0.0, None, 0), (None, None, 0.01, 0)],
)
def test_significance(before: float | None, after: float | None, p: float | None, expected: int) -> None:
    assert significance(Row("m", "qac", "unsafe", before, after, 48, p_adjusted=p)) == expected
