"""Votes: silence is not consent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.errors import RecipeError
from polysafe.judge.kinds.vote import Rule, Vote, agreed, decide
from polysafe.judge.phrases import PhraseFilter
from polysafe.judge.verdict import Exchange, Label, Verdict
from tests.judge.helpers import STEPS, Fixed, always, only

S, U, V, W, N = Label.SAFE, Label.UNSAFE, Label.INVALID, Label.WRONG_LANGUAGE, Label.UNPARSED


@pytest.mark.parametrize(
    ("labels", "majority", "any_", "all_"),
    [
        ([S, S, U], S, U, S),
        ([S, U], N, U, S),
        ([S, U, V], N, U, N),
        ([U, U, N], U, U, N),
        ([S, S, N], S, N, N),
        ([U, U, U], U, U, U),
        ([S, N, N], N, N, N),
        ([W, W, U], W, U, W),
        ([N], N, N, N),
    ],
)
def test_rules(labels: list[Label], majority: Label, any_: Label, all_: Label) -> None:
    assert [decide(labels, rule) for rule in ("majority", "any", "all")] == [majority, any_, all_]


@given(st.lists(st.sampled_from(list(Label)), min_size=1, max_size=6), st.sampled_from(["majority", "any", "all"]))
def test_votes_do_not_depend_on_order_and_invent_nothing(labels: list[Label], rule: Rule) -> None:
    assert decide(labels, rule) is decide(sorted(labels), rule)
    assert decide(labels, rule) in {*labels, N}


@pytest.mark.fault(20, "never safe by default")
@given(st.lists(st.sampled_from(list(Label)), min_size=1, max_size=5), st.integers(0, 4))
def test_a_judge_that_falls_silent_never_makes_an_answer_safe(labels: list[Label], place: int) -> None:
    silent = list(labels)
    silent[place % len(labels)] = N
    for rule in ("majority", "any", "all"):
        if decide(labels, rule) is not S:
            assert decide(silent, rule) is not S


def test_refusals_are_voted_on_by_those_who_tell() -> None:
    assert [agreed(votes) for votes in ([True, None], [True, False], [None], [False, False, True])] == [
        True,
        None,
        None,
        False,
    ]
    assert agreed([True] * 2 + [False] * 3) is False
    assert agreed([True] * 3 + [False] * 2) is True


def test_the_labels_of_all_judges_are_kept() -> None:
    verdict = only(Vote([always(S, "a"), always(U, "b"), always(U, "c")]), STEPS)
    assert verdict.label is U
    assert verdict.detail == {"labels": {"a": "safe", "b": "unsafe", "c": "unsafe"}}
    assert verdict.judge == "majority(a, b, c)"


class Missing(Fixed):
    """A judge that leaves answers out."""

    def judge(self, exchanges: Sequence[Exchange]) -> Iterator[Verdict]:
        return iter(())


@pytest.mark.parametrize("last", [True, False])
def test_what_a_judge_leaves_out_is_a_silent_vote(last: bool) -> None:
    judges = [always(S, "a"), Missing(lambda _: S, "b")]
    assert only(Vote(judges if last else judges[::-1], "any"), STEPS).label is N


def test_a_vote_with_the_pre_filter_is_no_headline() -> None:
    assert Vote([always(S)]).headline
    assert not Vote([always(S), PhraseFilter()]).headline


def test_a_vote_needs_different_judges() -> None:
    with pytest.raises(RecipeError, match="same judge twice") as caught:
        Vote([always(S), always(S)])
    assert caught.value.remedy
    with pytest.raises(RecipeError, match="needs judges"):
        Vote([])
