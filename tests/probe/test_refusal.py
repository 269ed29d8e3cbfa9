"""Refusal log-odds against their formula, written out once more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.data.openings import opening_languages, openings
from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.probe.continuations import Continuations
from polysafe.probe.likelihood import Scorer
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.refusal import RefusalOdds, RefusalSignal
from polysafe.probe.render import load_tokenizer
from tests.byte_level import save_byte_model

PROMPTS = [Prompt("set", str(n), "en", " ".join(["how do I bake bread"] * n), "harmless") for n in range(1, 5)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, PreTrainedTokenizerBase]]:
    torch.set_num_threads(1)
    folder = save_byte_model(tmp_path_factory.mktemp("bytes"))
    with open_source(folder) as source:
        yield load_model(source), load_tokenizer(folder)


def by_hand(scorer: Scorer, text: str, said: tuple[str, ...]) -> float:
    """The logarithm of the mean, over openings, of the geometric mean of their tokens' probabilities."""
    found = dict(scorer.score([(text, one) for one in said]))
    means = []
    for place, one in enumerate(said):
        likelihood = found[place]
        assert likelihood is not None
        means.append(math.exp(likelihood.total / len(one.encode())))
    return math.log(sum(means) / len(means))


def test_the_formula(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    found = {odds.id: odds for odds in RefusalSignal(Continuations(*loaded, template="raw")).measure(PROMPTS)}
    scorer, known = Scorer(*loaded, template="raw"), openings("en")
    for prompt in PROMPTS:
        odds = found[prompt.id]
        assert odds.refusal == pytest.approx(by_hand(scorer, prompt.text, known.refusal), abs=1e-4)
        assert odds.log_odds == odds.refusal - odds.compliance
    assert set(found) == {prompt.id for prompt in PROMPTS}


def test_a_model_that_was_taught_an_opening_leans_to_it(tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "bytes", seed=3)
    with open_source(folder) as source:
        model, tokenizer = load_model(source), load_tokenizer(folder)
        signal = RefusalSignal(Continuations(model, tokenizer, template="raw"))
        before = {odds.id: odds.log_odds for odds in signal.measure(PROMPTS)}
        _teach(model, tokenizer, [prompt.text for prompt in PROMPTS], openings("en").refusal[0])
        after = {odds.id: odds.log_odds for odds in signal.measure(PROMPTS)}
    assert all(after[name] > before[name] + 1 for name in before)


def _teach(model: LoadedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], answer: str) -> None:
    network = model.model
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(15):
        for text in texts:
            ids = torch.tensor([tokenizer(text + answer)["input_ids"]])
            labels = ids.clone()
            labels[:, : len(tokenizer(text)["input_ids"])] = -100
            loss = network(input_ids=ids, labels=labels).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def test_a_language_without_openings_is_refused(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    assert "en" in opening_languages()
    with pytest.raises(DataError, match="no refusal openings are known in 'qac'"):
        list(RefusalSignal(Continuations(*loaded, template="raw")).measure([Prompt("set", "1", "qac", "a", "harmful")]))


def test_odds_are_a_difference() -> None:
    assert RefusalOdds("a", -1.0, -3.5).log_odds == 2.5
