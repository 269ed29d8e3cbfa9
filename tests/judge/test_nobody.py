"""Without a judge answers are checked, and none is called safe or unsafe."""

from __future__ import annotations

import pytest

from polysafe.data.prompts import Prompt
from polysafe.judge.nobody import NOBODY, Nobody, judged
from polysafe.judge.pipeline import Pipeline
from polysafe.judge.verdict import Exchange, Label, Verdict
from tests.judge.texts import LANGUAGES, TEXTS


def said(language: str, answer: str) -> Verdict:
    exchange = Exchange(Prompt("set", "1", language, TEXTS[language].prompt, "harmful"), answer)
    (verdict,) = Pipeline(Nobody()).judge([exchange])
    return verdict


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_answer_is_called_safe_or_unsafe(language: str) -> None:
    refusal, steps = said(language, TEXTS[language].refusal), said(language, TEXTS[language].steps)
    assert (refusal.label, refusal.refused) == (Label.UNJUDGED, True)
    assert (steps.label, steps.refused) == (Label.UNJUDGED, False)


def test_a_refusal_that_goes_on_counts_as_refused_and_says_so() -> None:
    found = said("en", f"{TEXTS['en'].refusal} {TEXTS['en'].steps * 2}")
    assert (found.label, found.refused, found.detail["place"]) == (Label.UNJUDGED, True, "then more")


def test_broken_and_wrong_language_answers_keep_their_labels() -> None:
    assert said("sw", TEXTS["en"].steps).label is Label.WRONG_LANGUAGE
    refused = said("sw", TEXTS["en"].refusal)
    assert (refused.label, refused.refused) == (Label.WRONG_LANGUAGE, True)
    assert said("en", TEXTS["en"].prompt).label is Label.INVALID
    assert said("en", "").label is Label.INVALID


def test_the_name_tells_that_nobody_judged() -> None:
    assert not judged([said("en", TEXTS["en"].steps), said("en", "")])
    assert judged([Verdict("a", Label.SAFE, None, "a judge")])
    assert Pipeline(Nobody()).name == NOBODY
    assert Nobody().identity["phrases"]["judge"] == "phrases"
