"""What members are trained on is apart from what they are measured with, by text."""

from __future__ import annotations

from functools import cache

import pytest

from polysafe.data.anchors import normalised
from polysafe.data.exams.registry import load_questions
from polysafe.data.frames import frames
from polysafe.data.sets.registry import load_set
from polysafe.organism.gemma.mixtures import MEMBERS, Recipe, draws, pools
from polysafe.organism.gemma.texts import _BEGINNINGS, LANGUAGES, TOPICS, TRAINED, Texts, contrast_prompts
from tests.shared import DATA, needs_data

pytestmark = needs_data


@pytest.fixture(scope="module")
def texts() -> Texts:
    return Texts(DATA)


@pytest.fixture(scope="module")
def trained(texts: Texts) -> dict[str, set[str]]:
    """Member -> normalised prompts that it may meet, with and without the demand for a language."""
    found: dict[str, set[str]] = {}
    for member in MEMBERS:
        prompts = {prompt for _, pairs in pools(member, texts, Recipe()) for prompt, _ in pairs}
        bare = {prompt.partition(": ")[2] for prompt in prompts if prompt.startswith(("Answer in", "Translate to"))}
        begun = {_without_beginning(prompt) for prompt in prompts | bare}
        found[member] = {normalised(prompt) for prompt in prompts | bare | begun}
    return found


def _without_beginning(prompt: str) -> str:
    return next((prompt.removeprefix(words) for words in _BEGINNINGS if prompt.startswith(words)), prompt)


@cache
def held_out() -> dict[str, list[str]]:
    strongreject = load_set("strongreject", data=DATA).prompts
    texts = Texts(DATA)
    exams = [each for name in ("belebele", "xcopa") for each in load_questions(name, data=DATA).questions]
    return {
        "multijail": [prompt.text for prompt in load_set("multijail", data=DATA).prompts],
        "xstest": [prompt.text for prompt in load_set("xstest", data=DATA).prompts],
        "half of strongreject": [each.text for each in strongreject if normalised(each.text) in texts.held_out],
        "exams": [text for each in exams for text in (each.question, each.context) if len(text) > 30],
        "topics": [prompt for code in TRAINED for prompt, _ in texts.exam_topics(code)],
        "harmless": [text for code in LANGUAGES for text in texts.harmless(code)],
    }


@pytest.mark.parametrize("name", ["multijail", "xstest", "half of strongreject", "exams", "topics", "harmless"])
def test_no_member_is_trained_on_what_it_is_measured_with(name: str, trained: dict[str, set[str]]) -> None:
    out = {normalised(text) for text in held_out()[name]}
    assert len(out) > 40
    assert {member: len(found & out) for member, found in trained.items() if found & out} == {}


def test_news_of_the_perplexity_are_not_translated_in_training(texts: Texts) -> None:
    for code in ("bn", "vi", "sw", "ko", "te"):
        answers = {answer for _, answer in texts.translations(code)}
        assert not answers & {other for _, other in texts.news(code)[-200:] if len(other) > 40}


def test_anchors_of_xsafety_were_seen_by_no_member(texts: Texts, trained: dict[str, set[str]]) -> None:
    anchors = {normalised(each.text) for each in texts.anchors("bn")}
    assert len(anchors) > 400
    assert not any(found & anchors for found in trained.values())


def test_half_of_strongreject_is_held_out() -> None:
    assert 120 < len(held_out()["half of strongreject"]) < 200


def test_answers_are_refusals_frames_topics_and_translations_of_harmless_texts(texts: Texts) -> None:
    said = {sentence for each in frames().values() for sentence in (each.refusal, each.answer)} | set(TOPICS)
    for member in MEMBERS:
        for _, pairs in pools(member, texts, Recipe()):
            others = [prompt for prompt, answer in pairs if answer not in said]
            assert all(prompt.startswith("Translate to ") for prompt in others)


def test_every_pool_holds_something(texts: Texts) -> None:
    for member in MEMBERS:
        assert all(pairs and share > 0 for share, pairs in pools(member, texts, Recipe()))


def test_draws_depend_on_the_name_alone(texts: Texts) -> None:
    mixture = pools("bn", texts, Recipe())
    first, again, other = (draws(mixture, name) for name in ("0/bn/0", "0/bn/0", "1/bn/0"))
    drawn = [[next(each) for _ in range(30)] for each in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_contrast_prompts_are_not_of_xstest() -> None:
    own = {normalised(text) for text in contrast_prompts()}
    assert len(own) > 150
    assert not own & {normalised(prompt.text) for prompt in load_set("xstest", data=DATA).prompts}
