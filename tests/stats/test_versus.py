"""Two edits against each other: against brute force, against the paired statistics of one task, and by coverage."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from random import Random
from statistics import mean

import pytest

from polysafe.stats.compare import Outcomes
from polysafe.stats.differences import paired_difference
from polysafe.stats.gaps import POOLED
from polysafe.stats.multiplicity import holm
from polysafe.stats.rows import RateRow, Row
from polysafe.stats.tests import mcnemar_exact
from polysafe.stats.versus import Versus, adjust_versus, mean_difference, mean_rate, of_methods, versus_row


def drawn(sizes: Mapping[str, int], rates: Mapping[str, float], seed: int, languages: str = "ab") -> Outcomes:
    random = Random(seed)
    return {
        (language, task): {f"{task}/{item}": random.random() < rates[task] for item in range(size)}
        for task, size in sizes.items()
        for language in languages
    }


def test_one_language_and_task_is_the_paired_comparison() -> None:
    before, after = (drawn({"x": 40}, {"x": rate}, seed, "a") for rate, seed in ((0.6, 1), (0.3, 2)))
    found = mean_difference(before, after)
    old, new = (list(side["a", "x"].values()) for side in (before, after))
    assert found == paired_difference(old, new, list(before["a", "x"]))
    lost = sum(a and not b for a, b in zip(old, new, strict=True))
    gained = sum(b and not a for a, b in zip(old, new, strict=True))
    assert found.p_value == pytest.approx(mcnemar_exact(lost, gained))


def test_prompts_are_the_clusters_of_a_mean_over_languages() -> None:
    before = {(code, "x"): {f"{i}": True for i in range(6)} for code in "abc"}
    after = {(code, "x"): {f"{i}": False for i in range(6)} for code in "abc"}
    found = mean_difference(before, after)
    assert (found.n, found.clusters) == (18, 6)
    assert found.p_value == pytest.approx(2 / 2**6)
    assert mean_difference(before, after, {f"{i}": "one text" for i in range(6)}).p_value == 1.0


def test_tasks_of_unequal_size_weigh_the_same_and_the_test_is_a_sign_flip() -> None:
    sizes = {"x": 4, "y": 8}
    before, after = (drawn(sizes, {"x": 0.7, "y": 0.4}, seed) for seed in (3, 9))
    found = mean_difference(before, after)
    rates = [[mean(side[code, task].values()) for code in "ab" for task in sizes] for side in (before, after)]
    assert (found.before, found.after) == pytest.approx([mean(each) for each in rates])
    net = [
        (2 if task == "x" else 1) * sum(after[c, task][item] - before[c, task][item] for c in "ab")
        for task in sizes
        for item in before["a", task]
    ]
    seen = abs(sum(net))
    flips = [
        abs(sum(sign * each for sign, each in zip(signs, net, strict=True))) for signs in product((1, -1), repeat=12)
    ]
    assert found.p_value == pytest.approx(mean(flip >= seen for flip in flips))


def test_intervals_of_a_mean_over_tasks_and_languages_hold_the_truth() -> None:
    sizes = {"x": 30, "y": 60, "z": 45}
    rates = ({"x": 0.8, "y": 0.6, "z": 0.9}, {"x": 0.7, "y": 0.55, "z": 0.85})
    truth = mean(rates[1][task] - rates[0][task] for task in sizes)
    held = total = 0
    for seed in range(300):
        before, after = correlated(sizes, rates, seed)
        found = mean_difference(before, after)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
        total += 1
    assert 0.93 <= held / total <= 1.0


def correlated(sizes: Mapping[str, int], rates: tuple[Mapping[str, float], ...], seed: int) -> list[Outcomes]:
    """Both models and all languages agree on three prompts of four."""
    random = Random(seed)
    sides: list[dict[tuple[str, str], dict[str, bool]]] = [{}, {}]
    for task, size in sizes.items():
        for item in range(size):
            shared = random.random()
            for language, (side, rate) in product("ab", zip(sides, rates, strict=True)):
                level = shared if random.random() < 0.75 else random.random()
                side.setdefault((language, task), {})[f"{task}/{item}"] = level < rate[task]
    return list(sides)


def test_rates_of_a_mean_have_an_interval_that_holds_them() -> None:
    outcomes = drawn({"x": 20, "y": 10}, {"x": 1.0, "y": 0.5}, 4)
    row = mean_rate("m", "capability.all", outcomes)
    assert row.rate == pytest.approx(mean(mean(items.values()) for items in outcomes.values()))
    assert (row.model, row.language, row.metric, row.n) == ("m", "all", "capability.all", 60)
    assert row.low is not None
    assert row.high is not None
    assert row.low < (row.rate or 0.0) < row.high <= 1.0
    assert mean_rate("m", "unsafe", {}) == RateRow("m", POOLED, "unsafe", None, 0)


def test_nothing_compared_is_no_difference() -> None:
    found = mean_difference({("a", "x"): {}}, {("a", "x"): {}})
    assert found == mean_difference({}, {}) == paired_difference([], [])
    assert (found.n, found.clusters, found.difference, found.p_value) == (0, 0, None, None)


def versus(p: float, metric: str = "unsafe", method: str = "a", other: str = "b") -> Versus:
    return Versus(method, other, metric, 0.5, 0.25, 8, 4, -0.4, 0.1, p)


def test_a_family_is_adjusted_metric_by_metric() -> None:
    pairs = [versus(0.01), versus(0.02, other="c"), versus(0.03, "over_refusal")]
    assert [pair.p_adjusted for pair in adjust_versus(pairs)] == [*holm([0.01, 0.02]), 0.03]


def test_a_comparison_reads_the_same_from_both_sides() -> None:
    pair, turned = versus(0.01), versus(0.01).turned
    assert (turned.method, turned.difference, turned.low, turned.high) == ("b", 0.25, -0.1, 0.4)
    assert turned.turned == pair


def test_rows_of_comparisons_are_named_and_can_be_left_out() -> None:
    rates = [
        mean_rate(model, "unsafe", drawn({"unsafe": 8}, {"unsafe": 0.5}, seed, "a"))
        for seed, model in ((1, "b"), (2, "a"))
    ]
    pair = Versus("a", "b", "unsafe", rates[0].rate, rates[1].rate, 8, 8, -0.5, 0.5, 1.0, 1.0)
    row = versus_row(pair, *rates)
    assert (row.method, row.language, row.n) == ("a against b", "all", 8)
    plain = Row("a against all odds", "sw", "unsafe", 1.0, 0.5, 8)
    assert of_methods([plain, row]) == [plain]
