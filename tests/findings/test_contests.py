"""Methods against each other: only on what all were asked, only from one start, controls with their own method."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polysafe.findings.contests import ABILITY, Edited, contest_rows, contests, families
from polysafe.findings.gather import Answered, Findings, Pair
from polysafe.report.view import page
from polysafe.stats.compare import Outcomes
from polysafe.stats.tests import mcnemar_clustered
from tests.report.examples import LOW, TIERS, flat, outcomes

BEFORE = flat(unsafe=0.9, over_refusal=0.0, capability__knowledge=0.9, capability__reading=0.8)


def edited(start: str = "base", seed: int = 2, **after: float) -> Edited:
    rates = {metric: dict(languages) for metric, languages in BEFORE.items()} | flat(**after)
    return Edited(start, outcomes(BEFORE, 1), outcomes(rates, seed))


def without(each: Edited, metric: str, *items: str) -> Edited:
    """The same, with a metric that was not asked, or with items of it that were not."""

    def kept(side: Outcomes) -> Outcomes:
        return {
            cell: {item: holds for item, holds in cells.items() if cell[1] != metric or item not in items}
            for cell, cells in side.items()
            if items or cell[1] != metric
        }  # fmt: skip

    return replace(each, before=kept(each.before), after=kept(each.after))


def test_starts_are_apart() -> None:
    found = contests({"a": edited(), "b": edited("expert"), "c": edited()}, LOW)
    assert [(each.start, each.methods) for each in found] == [("base", ["a", "c"]), ("expert", ["b"])]
    assert [{(pair.method, pair.other) for pair in each.pairs} for each in found] == [{("a", "c")}, set()]


def test_only_what_all_were_asked_is_compared() -> None:
    less = without(without(edited(unsafe=0.1), "capability.reading"), "unsafe", "000", "001")
    (found,) = contests({"a": edited(unsafe=0.2), "b": less}, LOW)
    assert found.tasks == ("knowledge",)
    rates = {(row.model, row.metric): row for row in found.rates}
    assert rates["a", "unsafe"].n == rates["b", "unsafe"].n == rates["base", "unsafe"].n == 3 * 46
    pair = found.between("b", "a", "unsafe")
    assert pair is not None
    assert (pair.n, pair.clusters) == (3 * 46, 46)
    assert pair.difference == pytest.approx((rates["b", "unsafe"].rate or 0) - (rates["a", "unsafe"].rate or 0))


def test_a_method_that_was_not_asked_everywhere_is_left_out() -> None:
    some = edited()
    one = replace(some, after={cell: items for cell, items in some.after.items() if cell[0] == "qac"})
    (found,) = contests({"a": edited(), "b": edited(), "b.without_qac": one}, LOW)
    assert found.methods == ["a", "b"]


def test_a_start_is_compared_in_the_languages_that_its_methods_were_asked_in() -> None:
    def asked_in(each: Edited, language: str) -> Edited:
        sides = (each.before, each.after)
        before, after = ({cell: items for cell, items in side.items() if cell[0] == language} for side in sides)
        return replace(each, before=before, after=after)

    experts = {name: asked_in(edited("expert"), "qac") for name in ("swap", "control.swap.random.0")}
    nowhere = asked_in(edited("other"), "en")
    base, expert = contests({"a": edited(), **experts, "b": nowhere}, LOW)
    assert (base.languages, expert.languages) == (LOW, ("qac",))
    assert {(pair.method, pair.other) for pair in expert.pairs} == {("swap", "control.swap.random.0")}


def test_methods_and_controls_are_families_of_their_own() -> None:
    methods = ["m", "m.published", "soup", "control.m.random.0", "control.m.random.1", "m.without_sw"]
    assert families(methods) == [
        [("m", "m.published"), ("m", "soup"), ("m.published", "soup")],
        [("m", "control.m.random.0"), ("m", "control.m.random.1")],
    ]
    assert families(["a", "control.random_blocks"]) == [[("a", "control.random_blocks")]]


def test_pairs_are_rows_of_the_results_with_holms_adjustment() -> None:
    made = {"a": edited(unsafe=0.1), "b": edited(seed=3, unsafe=0.6), "c": edited(seed=4, unsafe=0.9)}
    (found,) = contests(made, LOW)
    rows = {(row.method, row.metric): row for row in contest_rows([found])}
    assert {metric for _, metric in rows} == {"unsafe", "over_refusal", ABILITY}
    assert rows["a against b", "unsafe"].after == pytest.approx(0.1, abs=0.01)
    assert all((row.p_adjusted or 0) >= (row.p_value or 0) for row in rows.values())
    assert any((row.p_adjusted or 0) > (row.p_value or 0) for row in rows.values())


def swapped(rate: float) -> Findings:
    """Models of a swap for three languages, all asked in English too, where the first became unsafe at this rate."""
    made, pairs = Findings(), []
    for number, language in enumerate(LOW):
        low = {"unsafe": {"en": 0.0, language: 1.0}}
        after = {"unsafe": {"en": 0.0 if number else rate, language: 0.0}}
        before = Answered(language, "en", outcomes(low, number + 7))
        pairs.append(Pair(before, Answered("m", "en", outcomes(after, number + 8)), ("en", language)))
    made.add_method("m", pairs)
    return made


def test_the_pivot_of_several_models_is_one_row_by_prompt() -> None:
    rows = {row.language: row for row in swapped(1.0).rows}
    assert set(rows) == {"en", *LOW}
    assert rows["en"].n == 3 * 48
    assert rows["en"].after == pytest.approx(1 / 3)
    assert rows["en"].p_value == mcnemar_clustered([1] * 48)
    low = rows["en"].after_low
    assert low is not None
    assert low < 1 / 3 - 0.07  # 48 prompts are clusters; 144 independent answers would end nearer
    assert all(rows[language].n == 48 for language in LOW)


def test_the_verdict_sees_what_happens_in_the_pivot() -> None:
    from polysafe.findings.verdict import judge

    fine, worse = (swapped(rate).data("t", toy=True, tiers=TIERS) for rate in (0.0, 1.0))
    assert judge(fine).kind != judge(worse).kind
    assert "in en 0" in judge(worse).sentence.replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_the_page_counts_what_is_told_apart() -> None:
    made = Findings()
    start = Answered("base", "en", outcomes(BEFORE, 1))
    for name, rate in (("m", 0.1), ("control.m.random.0", 0.12), ("soup", 0.85)):
        after = flat(unsafe=rate, over_refusal=0.0, capability__knowledge=0.9, capability__reading=0.8)
        made.add_method(name, [Pair(start, Answered(name, "en", outcomes(after, 5)), LOW)])
    shown = page(made.data("t", toy=True, tiers=TIERS))
    assert shown["versus_sentences"] == [
        "Edits of base, each against each: told apart in unsafe 1 of 1, over-refusal 0 of 1, ability 0 of 1 pairs.",
        "m against its controls: told apart in unsafe 0 of 1, over-refusal 0 of 1, ability 0 of 1 pairs.",
    ]
    first, second = shown["versus"].groups
    assert first.rows[0][1].tone == "better"
    assert second.rows[0][1].tone == ""
