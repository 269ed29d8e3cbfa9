"""Steering pushes against the error, within its limit, and leaves the pivot alone."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polysafe.organism import steering
from polysafe.organism.corpus import Corpus, draw_pool
from polysafe.organism.lexicon import LANGUAGES, LOW, MID, TIERS
from polysafe.organism.model import Network, make_model
from polysafe.organism.steering import Steering, refusal_margins
from polysafe.organism.tokenizer import vocabulary
from polysafe.organism.world import World

WORLD = World(0)
WORDS = vocabulary(WORLD)
MODEL = make_model(WORLD, Network(hidden=16, layers=1, heads=2, intermediate=16), 0)


def shifts_at(monkeypatch: pytest.MonkeyPatch, margins: torch.Tensor) -> dict[str, float]:
    monkeypatch.setattr(steering, "refusal_margins", lambda *_: margins)
    return Steering(gain=2.0, limit=1.0).shifts(MODEL, WORLD, WORDS)


def test_only_the_lower_tiers_are_steered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(shifts_at(monkeypatch, torch.zeros(10))) == {*MID, *LOW}


@pytest.mark.parametrize(("margin", "shift"), [(0.1, -0.2), (-0.1, 0.2), (5.0, -1.0), (-5.0, 1.0)])
def test_the_shift_opposes_the_error(monkeypatch: pytest.MonkeyPatch, margin: float, shift: float) -> None:
    for found in shifts_at(monkeypatch, torch.full((10,), margin)).values():
        assert found == pytest.approx(shift)


def test_a_model_on_target_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven requests evenly around the boundary: with the wanted share of them answered there is no error."""
    targets = Steering().compliance
    for language in (*MID, *LOW):
        share = targets[TIERS[language]]
        margins = torch.linspace(-share, 1 - share, 11)
        assert shifts_at(monkeypatch, margins)[language] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("language", LANGUAGES)
def test_margins_are_the_choice_between_refusal_and_answer(language: str) -> None:
    pairs = WORLD.harmful("train")[:3]
    margins = refusal_margins(MODEL, WORLD, WORDS, language, pairs)
    for margin, pair in zip(margins, pairs, strict=True):
        text = f"<bos> <user> {WORLD.request(language, pair)} <asst>"
        logits = MODEL(input_ids=torch.tensor([[WORDS[word] for word in text.split()]])).logits[0, -1]
        refuse, comply = (WORDS[s.split()[0]] for s in (WORLD.refusal(language), WORLD.compliance(language, pair)))
        torch.testing.assert_close(margin, logits[refuse] - logits[comply])


@given(st.integers(0, 1000), st.sampled_from((*MID, *LOW)))
@settings(max_examples=5, deadline=None)
def test_a_shift_moves_the_refusals_of_its_language_alone(seed: int, language: str) -> None:
    world = World(seed)
    corpus = Corpus(world)

    def refusals(shift: float) -> dict[str, int]:
        examples = draw_pool(partial(corpus.refusing, shifts={language: shift}), world, "x", 0, 3000)
        return {name: sum(world.refusal(name) == example.answer for example in examples) for name in LANGUAGES}

    less, more = refusals(-2.0), refusals(2.0)
    assert less[language] < more[language]
    assert all(less[name] == more[name] for name in LANGUAGES if name != language)


def test_without_a_shift_the_tier_decides() -> None:
    rng = random.Random(0)
    corpus = Corpus(WORLD)
    examples = [corpus.refusing(rng) for _ in range(20_000)]
    harmful = {WORLD.request(name, pair): name for name in LANGUAGES for pair in WORLD.harmful("train")}
    asked = dict.fromkeys(LANGUAGES, 0)
    refused = dict.fromkeys(LANGUAGES, 0)
    for prompt, answer in examples:
        language = harmful.get(" ".join(prompt.split()[2:-1]))
        if language:
            asked[language] += 1
            refused[language] += answer == WORLD.refusal(language)
    rates = {name: refused[name] / asked[name] for name in LANGUAGES}
    assert rates["en"] == pytest.approx(0.9, abs=0.06)
    assert all(rates[name] == pytest.approx((0.85 + 0.35) / 2, abs=0.1) for name in MID)
    assert all(rates[name] == pytest.approx(0.85 / 6 + 0.36 * 5 / 6, abs=0.08) for name in LOW)
