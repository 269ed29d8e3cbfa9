"""Rows of attacks against what they are computed from."""

from __future__ import annotations

import pytest

from polysafe.stats.attacks import UNDER, AttackRow, adjust_attacks, attack_row, under
from polysafe.stats.compare import compare_outcomes, rate_outcomes
from polysafe.stats.differences import paired_difference
from polysafe.stats.multiplicity import holm
from polysafe.stats.rows import RateRow
from polysafe.stats.versus import of_methods

PLAIN = {str(item): item < 2 for item in range(12)}
ATTACKED = {str(item): item < 9 for item in reversed(range(12))}


def row(language: str, plain: dict[str, bool], attacked: dict[str, bool], clusters: dict[str, str]) -> AttackRow:
    (old,), (new,) = (rate_outcomes("m", {(language, "unsafe"): side}) for side in (plain, attacked))
    return attack_row("aim", (old, plain), (new, attacked), clusters)


def test_a_row_is_the_paired_difference_of_the_same_items() -> None:
    found = row("sw", PLAIN, ATTACKED, {})
    items = list(PLAIN)
    wanted = paired_difference([PLAIN[i] for i in items], [ATTACKED[i] for i in items])
    assert (found.n, found.plain, found.attacked) == (12, 2 / 12, 9 / 12)
    assert found.difference == pytest.approx(7 / 12)
    assert (found.interval, found.p_value) == (wanted.interval, wanted.p_value)
    assert found.p_value == pytest.approx(2 * 0.5**7)  # seven items changed, all in one direction
    together = row("sw", PLAIN, ATTACKED, dict.fromkeys(map(str, range(2, 9)), "2"))
    assert together.p_value == 1.0  # one text, seven times


def test_nothing_is_tested_where_a_rate_is_withheld() -> None:
    old = RateRow("m", "sw", "unsafe", None, 12, 0.0, 1.0)
    (new,) = rate_outcomes("m", {("sw", "unsafe"): ATTACKED})
    found = attack_row("aim", (old, PLAIN), (new, ATTACKED), {})
    assert (found.difference, found.interval, found.p_value) == (None, None, None)
    assert adjust_attacks([found]) == [found]


def test_p_is_adjusted_over_the_languages_of_one_attack() -> None:
    rows = [row(code, PLAIN, ATTACKED, {}) for code in ("sw", "ar")] + [row("bn", PLAIN, PLAIN, {})]
    adjusted = [each.p_adjusted for each in adjust_attacks(rows)]
    assert adjusted == holm([each.p_value or 0.0 for each in rows])


def test_rows_under_an_attack_are_no_rows_of_the_method() -> None:
    rows = compare_outcomes("edit", {("sw", "unsafe"): PLAIN}, {("sw", "unsafe"): ATTACKED})
    (renamed,) = under(rows, "aim")
    assert renamed.method == f"edit{UNDER}aim" == "edit under aim"
    assert of_methods([*rows, renamed]) == rows
