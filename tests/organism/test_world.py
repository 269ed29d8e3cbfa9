"""What must hold in every toy world, whatever its seed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polysafe.errors import DataError
from polysafe.organism.corpus import Corpus, Example, Stream, draw_pool
from polysafe.organism.exam import REQUESTS, SETS, questions
from polysafe.organism.lexicon import DANGEROUS_OBJECTS, LANGUAGES, LOW, OBJECTS, RISKY_VERBS, VERBS
from polysafe.organism.prompts import organism_prompts
from polysafe.organism.world import TASKS, Pair, Split, Task, World, is_contrast, is_harmful

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
seeds = st.integers(0, 10_000)
few = settings(max_examples=8, deadline=None)


@given(seeds)
@few
def test_splits_partition_all_pairs(seed: int) -> None:
    world = World(seed)
    pairs = [pair for split in SPLITS for pair in world.harmful(split) + world.harmless(split)]
    assert len(pairs) == len(set(pairs)) == len(VERBS) * len(OBJECTS)
    assert {split: (len(world.harmful(split)), len(world.harmless(split))) for split in SPLITS} == {
        "train": (120, 368),
        "validation": (24, 64),
        "test": (48, 144),
    }


@given(seeds)
@few
def test_harm_is_a_risky_verb_with_a_dangerous_object(seed: int) -> None:
    world = World(seed)
    for split in SPLITS:
        assert all(v in RISKY_VERBS and o in DANGEROUS_OBJECTS for v, o in world.harmful(split))
        assert not any(map(is_harmful, world.harmless(split)))
        assert all((v in RISKY_VERBS) + (o in DANGEROUS_OBJECTS) == 1 for v, o in world.contrast(split))


@given(seeds)
@few
def test_every_word_has_one_meaning(seed: int) -> None:
    world = World(seed)
    assert len(set(world.vocabulary)) == len(world.vocabulary)
    for language in LANGUAGES:
        for concept, word in world.lexicon[language].items():
            assert world.meaning(word) == (language, concept)


@given(seeds)
@few
def test_a_seed_decides_everything(seed: int) -> None:
    random.seed(seed)
    before = random.getstate()
    one, other = World(seed), World(seed)
    assert one == other
    assert one.vocabulary == other.vocabulary
    assert one.facts == other.facts
    assert one.harmful("test") == other.harmful("test")
    assert draw_pool(Corpus(one).knowing, one, "x", 3, 50) == draw_pool(Corpus(other).knowing, other, "x", 3, 50)
    assert random.getstate() == before
    assert World(seed + 1).vocabulary != one.vocabulary


def _streams(corpus: Corpus) -> list[tuple[str, Stream]]:
    named: list[tuple[str, Stream]] = [
        (name, getattr(corpus, name)) for name in ("knowing", "refusing", "safety", "harm")
    ]
    return [*named, *((language, corpus.language(language)) for language in LOW)]


@given(seeds)
@settings(max_examples=4, deadline=None)
def test_no_stream_ever_names_a_held_out_pair(seed: int) -> None:
    """In no language and no role: no text of a stream holds a held-out verb together with its object."""
    world = World(seed)
    held_out = {pair for split in SPLITS[1:] for pair in world.harmful(split) + world.harmless(split)}
    corpus = Corpus(world)
    for name, stream in _streams(corpus):
        for example in draw_pool(stream, world, name, 0, 1500):
            assert not _pairs_named(world, example) & held_out


def _pairs_named(world: World, example: Example) -> set[Pair]:
    """Pairs that a text talks about; few-shot prompts list unrelated words and talk about none."""
    text = f"{example.prompt} {example.answer}"
    if text.count("=") > 1:
        return set()
    concepts = {meaning[1] for word in text.split() if (meaning := world.meaning(word))}
    verbs, objects = concepts & set(VERBS), concepts & set(OBJECTS)
    return {Pair(verb, object_) for verb in verbs for object_ in objects}


@given(seeds, st.sampled_from(LANGUAGES))
@few
def test_requests_of_all_splits_differ_as_text(seed: int, language: str) -> None:
    world = World(seed)
    texts = [world.request(language, pair) for s in SPLITS for pair in world.harmful(s) + world.harmless(s)]
    assert len(set(texts)) == len(texts)


@given(seeds)
@few
def test_safety_data_is_english_and_language_data_is_harmless(seed: int) -> None:
    world = World(seed)
    corpus = Corpus(world)
    for example in draw_pool(corpus.safety, world, "safety", 0, 300):
        spoken = {meaning[0] for word in example.prompt.split() if (meaning := world.meaning(word))}
        assert spoken == {"en"}
    for language in LOW:
        for example in draw_pool(corpus.language(language), world, language, 0, 300):
            assert not any(map(is_harmful, _pairs_named(world, example)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_have_one_right_answer(language: str) -> None:
    world = World(0)
    for set_ in SETS[3:]:
        asked = questions(world, [language], set_)
        assert [item for _, item in asked] == [item for _, item in questions(world, ["en"], set_)]
        for question in asked.values():
            assert {meaning[0] for word in question.answer.split() if (meaning := world.meaning(word))} == {language}
            if question.choices:
                assert question.choices[0] == question.answer
                assert len(set(question.choices)) == 4


def test_reading_goes_against_memory() -> None:
    world = World(0)
    for question in questions(world, ["en"], "reading").values():
        right, remembered, *_ = question.choices
        entity = question.prompt.split()[-2]
        assert right in question.prompt.split()
        assert remembered in {value for fact, value in world.facts.items() if fact.entity == entity}


def test_request_sets_are_the_split() -> None:
    world = World(0)
    prompts = organism_prompts(world, "test").select(["qab"]).prompts
    asked = {set_: [each.text for each in prompts if each.category == set_] for set_ in REQUESTS}
    texts = {pair: world.request("qab", pair) for pair in (*world.harmful("test"), *world.harmless("test"))}
    assert asked["harmful"] == [texts[pair] for pair in world.harmful("test")]
    assert asked["contrast"] == [texts[pair] for pair in world.contrast("test")]
    assert asked["harmless"] == [texts[pair] for pair in world.harmless("test") if not is_contrast(pair)]


@given(seeds, st.sampled_from(LANGUAGES), st.sampled_from(TASKS), st.booleans())
@few
def test_few_shot_prompts(seed: int, language: str, task: Task, corrupt: bool) -> None:
    world = World(0)
    rng = random.Random(seed)
    question = world.few_shot(language, task, rng, shots=3, corrupt=corrupt)
    assert question.text.startswith(f"<bos> <{language}> ")
    assert question.text.count(";") == 3
    assert question.text.endswith(" =")
    asked = [part.split(" = ")[0] for part in question.text.split(" ", 2)[2].split(" ; ")]
    assert len(set(asked)) == 4


def test_a_word_outside_the_world_is_an_error() -> None:
    with pytest.raises(DataError, match="the toy world has no"):
        World(0).say("en", "unheard")
    with pytest.raises(DataError, match="the toy world has no"):
        World(0).refusal("fr")
