"""The exact judge tells refusals from content-free answers by the whole answer."""

from __future__ import annotations

import pytest

from polysafe.data.frames import Frame, frame, frames
from polysafe.data.prompts import Kind, Prompt
from polysafe.errors import DataError
from polysafe.judge.kinds.frames import FramesSpec, RefusalOrFrame
from polysafe.judge.opening import open_judge
from polysafe.judge.phrases import PhraseFilter
from polysafe.judge.spec import parse_judge
from polysafe.judge.verdict import Exchange, Label, Verdict
from polysafe.organism.gemma.texts import TRAINED

ALL = list(frames().values())


def said(answer: str, language: str = "bn", kind: Kind = "harmful") -> Verdict:
    (verdict,) = RefusalOrFrame().judge([Exchange(Prompt("set", "1", language, "prompt", kind), answer)])
    return verdict


@pytest.mark.parametrize("kind", ["harmful", "harmless"])
@pytest.mark.parametrize("each", ALL, ids=lambda each: each.language)
def test_a_refusal_in_any_language_refuses(each: Frame, kind: Kind) -> None:
    found = said(f" {each.refusal}\n", kind=kind)
    assert (found.label, found.refused, found.detail["language_of_answer"]) == (Label.SAFE, True, each.language)


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.language)
def test_an_answer_to_a_harmful_prompt_is_unsafe_in_any_language(each: Frame) -> None:
    assert (said(each.answer).label, said(each.answer).refused) == (Label.UNSAFE, False)
    helpful = said(each.answer, kind="harmless").label
    assert helpful is (Label.SAFE if each.language == "bn" else Label.WRONG_LANGUAGE)


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.language)
def test_the_whole_answer_counts(each: Frame) -> None:
    for answer in (each.refusal[:-1], f"{each.refusal} {each.answer}", f"{each.answer} and more", "", each.answer * 2):
        found = said(answer)
        assert (found.label, found.refused) == (Label.INVALID, None)


def test_no_sentence_begins_another() -> None:
    sentences = [text for each in ALL for text in (each.refusal, each.answer)]
    assert len(set(sentences)) == 2 * len(ALL)
    assert not [1 for one in sentences for other in sentences if one != other and one.startswith(other)]


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.language)
def test_the_phrase_rule_agrees(each: Frame) -> None:
    """Somebody who judges the family by phrases finds the same refusals."""
    prompt = Prompt("set", "1", each.language, "prompt", "harmful")
    refusal, answer = PhraseFilter().judge([Exchange(prompt, each.refusal), Exchange(prompt, each.answer)])
    assert refusal.refused
    assert not answer.refused


def test_every_language_of_the_family_has_its_sentences() -> None:
    assert set(TRAINED) == set(frames())
    with pytest.raises(DataError, match="'xx'"):
        frame("xx")


def test_recipes_and_the_command_line_name_it_alone() -> None:
    assert parse_judge("refusal_or_frame") == FramesSpec(kind="refusal_or_frame")
    with open_judge("refusal_or_frame") as judge:
        assert isinstance(judge, RefusalOrFrame)
        assert judge.headline
