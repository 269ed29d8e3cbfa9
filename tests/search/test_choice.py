"""Which point is recommended, and what is said of it."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest

from polysafe.recipe.measures import Objective
from polysafe.search.choice import agreement, contenders, front, optimism, paired_p, recommend, spread
from polysafe.search.points import Outcome, Point
from polysafe.stats.tests import mcnemar_exact
from tests.search.made import N, outcome, point

OBJECTIVES: tuple[Objective, ...] = ("refused", "kl")


def test_the_front_holds_what_nothing_is_better_than_in_everything() -> None:
    points = [
        point(0, 30, 0.3),
        point(1, 20, 0.1),
        point(2, 20, 0.2),
        point(3, 35, 0.1, over=0.5),
        Point(4, {}, None, "no"),
    ]
    assert [each.number for each in front(points, OBJECTIVES)] == [0, 1]
    assert [each.number for each in front(points, ("refused",))] == [0]


def test_points_that_are_alike_are_one_of_the_front() -> None:
    assert [each.number for each in front([point(0, 30, 0.1), point(1, 30, 0.1)], OBJECTIVES)] == [0]


def test_the_most_is_recommended_and_what_costs_too_much_is_not() -> None:
    choice = recommend([point(0, 38, over=0.1), point(1, 30), point(2, 20)], ("refused",), 3)
    assert choice.point is not None
    assert choice.point.number == 1
    assert "gains most" in choice.reason


def test_of_what_is_not_shown_to_gain_less_the_mildest_is_recommended() -> None:
    points = [point(0, 30, 0.5), point(1, 29, 0.1), point(2, 15, 0.01)]
    choice = recommend(points, OBJECTIVES, 3)
    assert choice.point is not None
    assert choice.point.number == 1
    assert "kl 0.1 instead of 0.5" in choice.reason


@pytest.mark.parametrize(("lost", "number"), [(1, 1), (2, 0)])
def test_one_standard_error_is_one_prompt_of_which_no_other_changed(lost: int, number: int) -> None:
    choice = recommend([point(0, 30, 0.5), point(1, 30 - lost, 0.1)], OBJECTIVES, 2)
    assert choice.point is not None
    assert choice.point.number == number


def test_a_judge_is_asked_about_what_the_signal_takes_for_dear_too() -> None:
    points = [
        point(0, 38, 0.9, over=0.5),
        point(1, 30, 0.3),
        point(2, 33, 0.4, over=0.1),
        point(3, 20, 0.1),
        point(4, 25, 0.2, over=0.1),
        Point(5, {}, None, "no"),
    ]
    assert [each.number for each in contenders(points, OBJECTIVES, 9)] == [1, 2, 3, 0]
    assert [each.number for each in contenders(points, OBJECTIVES, 2)] == [1, 2]
    within = [each for each in points if each.outcome and each.outcome.feasible]
    assert contenders(within, OBJECTIVES, 9) == front(within, OBJECTIVES)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([point(0, 38, over=0.1)], "costs more than the constraints allow: over_refusal in 1"),
        ([point(0, 12, p_value=0.04)], "not shown|is shown to refuse more"),
        ([point(0, 5)], "is shown to refuse more"),
        ([Point(0, {}, None, "no such layer")], "can be made"),
    ],
)
def test_nothing_is_recommended_and_why_is_said(points: list[Point], said: str) -> None:
    choice = recommend(points, OBJECTIVES, 10)
    assert choice.point is None
    assert any(each in choice.reason for each in said.split("|"))


def test_a_gain_is_corrected_for_all_that_were_tried() -> None:
    found = [point(0, 20, p_value=0.001)]
    assert recommend(found, OBJECTIVES, 40).point is not None
    assert recommend(found, OBJECTIVES, 60).point is None


def test_two_edits_are_compared_prompt_by_prompt() -> None:
    assert paired_p(outcome(30), outcome(30)) == 1
    assert paired_p(outcome(30), outcome(20)) == pytest.approx(mcnemar_exact(10, 0))


def noise(rng: random.Random, number: int) -> Point:
    """An edit that does nothing, read with chance."""
    made = outcome(10)
    items: dict[str, float | bool] = {f"set/{row}": rng.random() < 0.25 for row in range(N)}
    return Point(number, {}, Outcome(**{**vars(made), "reading": [("sw", "refused", items)]}))


def test_the_winner_of_many_that_do_nothing_is_expected_to_do_nothing() -> None:
    rng = random.Random(0)
    before = {"sw": {f"set/{row}": row < 10 for row in range(N)}}
    found = [optimism([noise(rng, number) for number in range(50)], before) for _ in range(5)]
    promised, expected = zip(*((each.promised, each.expected) for each in found if each), strict=True)
    assert fmean(promised) > 0.12
    assert abs(fmean(expected)) < 0.05


def test_a_winner_that_is_really_better_keeps_what_it_promises() -> None:
    before = {"sw": {f"set/{row}": row < 10 for row in range(N)}}
    found = optimism([point(0, 35), point(1, 12), point(2, 11)], before)
    assert found is not None
    assert found.promised == pytest.approx(25 / 40)
    assert found.expected == pytest.approx(25 / 40, abs=0.05)
    assert optimism([point(0, 35)], before) is None


def test_agreement_of_a_signal_with_the_judge() -> None:
    signal = [outcome(refused) for refused in (10, 14, 18, 22, 26, 30)]
    (same,) = agreement(signal, signal)
    assert same.points == 6
    assert same.tau == pytest.approx(1.0)
    (mixed,) = agreement(signal, [outcome(refused) for refused in (14, 10, 18, 26, 22, 30)])
    assert mixed.tau is not None
    assert mixed.low is not None
    assert mixed.high is not None
    assert -1 < mixed.low < mixed.tau < mixed.high < 1
    (constant,) = agreement(signal, [outcome(10)] * 6)
    assert constant.tau is None


def test_points_besides_the_front_lie_over_the_whole_range() -> None:
    points = [point(number, number) for number in range(40)]
    chosen = points[-3:]
    found = [each.number for each in spread(points, chosen, 5)]
    assert found[0] == 0
    assert found[-1] == 36
    assert not set(found) & {each.number for each in chosen}
    assert np.all(np.diff(found) > 5)
