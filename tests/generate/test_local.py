"""Answers of a model in this process: those of asking one at a time, and nobody's defaults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.errors import DataError, ResourceError
from polysafe.generate.completion import Ask, Completion, Sampling
from polysafe.generate.local import TOGETHER, LocalGenerator
from polysafe.organism.own import packaged_organism
from polysafe.organism.packaged import packaged_family
from polysafe.organism.world import chat
from polysafe.probe.batches import Pace
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from tests.byte_level import save_byte_model

BASE = packaged_family().members["base"]


@pytest.fixture(scope="module")
def toy() -> Iterator[tuple[LoadedModel, PreTrainedTokenizerBase]]:
    torch.set_num_threads(1)
    with open_source(BASE) as source:
        yield load_model(source), load_tokenizer(BASE)


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, PreTrainedTokenizerBase]]:
    folder = save_byte_model(tmp_path_factory.mktemp("bytes"))
    with open_source(folder) as source:
        yield load_model(source), load_tokenizer(folder)


TEXTS = [Ask(f"a{n}", text) for n, text in enumerate(("a", "bread and water", "క", "x" * 40, "ab", "ขนม", "q" * 17))]


def test_answers_are_those_that_are_written_by_hand(toy: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    prompts = packaged_organism().prompts("validation").select(["qac", "en"]).prompts[::5]
    model, tokenizer = toy
    found = LocalGenerator(*toy, Sampling(max_tokens=8)).generate([Ask(each.id, each.text) for each in prompts])
    answers = {done.id: done for done in found}
    for prompt in prompts:
        ids = tokenizer(chat(prompt.text), add_special_tokens=False)["input_ids"]
        begin = len(ids)
        with torch.no_grad():
            while tokenizer.eos_token_id not in ids[begin:]:
                ids.append(int(model.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answers[prompt.id].text == tokenizer.decode(ids[begin:-1])
    assert {done.ending for done in answers.values()} == {"stop"}
    assert all(done.tokens == len(done.text.split()) + 1 for done in answers.values())


@pytest.mark.parametrize("batch_tokens", [1, 60, 100_000])
def test_batches_change_nothing(bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase], batch_tokens: int) -> None:
    settings = {"template": "raw", "batch_tokens": batch_tokens}
    generator = LocalGenerator(*bytes_model, Sampling(max_tokens=12), **settings)  # type: ignore[arg-type]
    together = {each.id: each for each in generator.generate(TEXTS)}
    model, tokenizer = bytes_model
    for ask in TEXTS:
        ids = torch.tensor([tokenizer(ask.text)["input_ids"]])
        with torch.no_grad():
            for _ in range(12):  # by hand, one at a time
                ids = torch.cat((ids, model.model(ids).logits[:, -1:].argmax(-1)), 1)
        assert together[ask.id].text == tokenizer.decode(ids[0, -12:], skip_special_tokens=True)
        assert together[ask.id].ending == "length"


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_the_pace_of_a_processor_changes_nothing(
    bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Whether every batch takes too long or none does, answers are those that are asked for one at a time."""
    asks = [Ask(f"{n}", f"{'x' * (n % 7)} {n}") for n in range(60)]

    def answers(pace: Pace | None) -> dict[str, Completion]:
        monkeypatch.setattr(Pace, "of", lambda *_: pace)
        generator = LocalGenerator(*bytes_model, Sampling(max_tokens=8), template="raw")
        return {each.id: each for each in generator.generate(asks)}

    assert answers(Pace(8, seconds)) == answers(Pace(1, 1e-9)) == answers(None)


def test_what_was_answered_before_an_interruption_was_given(
    bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase],
) -> None:
    """Batches begin small: the first answers are there long before all could be."""
    asks = [Ask(f"{n}", f"text {n}") for n in range(60)]
    given = LocalGenerator(*bytes_model, Sampling(max_tokens=8), template="raw").generate(asks)
    rows: list[int] = []
    kind: Any = type(bytes_model[0].model)
    plain = kind.generate

    def counted(self: object, **options: torch.Tensor) -> torch.Tensor:
        rows.append(len(options["input_ids"]))
        found: torch.Tensor = plain(self, **options)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "generate", counted)
        next(given)
    assert rows == [TOGETHER]


def test_a_checkpoint_cannot_bring_its_own_sampling(
    bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = [done.text for done in LocalGenerator(*bytes_model, Sampling(max_tokens=8), template="raw").generate(TEXTS)]
    config = GenerationConfig(
        do_sample=True, temperature=5.0, repetition_penalty=3.0, max_new_tokens=2, min_new_tokens=2
    )
    monkeypatch.setattr(bytes_model[0].model, "generation_config", config)
    found = [done.text for done in LocalGenerator(*bytes_model, Sampling(max_tokens=8), template="raw").generate(TEXTS)]
    assert found == plain


def test_drawn_answers_depend_on_seed_and_message_alone(
    bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase],
) -> None:
    def draw(seed: int, asks: list[Ask]) -> dict[str, str]:
        sampling = Sampling(max_tokens=8, temperature=1.5, seed=seed)
        return {each.id: each.text for each in LocalGenerator(*bytes_model, sampling, template="raw").generate(asks)}

    first = draw(0, TEXTS)
    assert draw(0, TEXTS[3:]) == {ask.id: first[ask.id] for ask in TEXTS[3:]}
    assert draw(1, TEXTS) != first


def test_memory_that_runs_out_halves_the_batches(
    bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = type(bytes_model[0].model)
    plain, sizes = kind.generate, []

    def small(self: object, **given: torch.Tensor) -> torch.Tensor:
        sizes.append(len(given["input_ids"]))
        if sizes[-1] > limit:
            raise torch.OutOfMemoryError
        found: torch.Tensor = plain(self, **given)
        return found

    monkeypatch.setattr(kind, "generate", small)
    limit = 2
    generator = LocalGenerator(*bytes_model, Sampling(max_tokens=4), template="raw")
    assert {done.id for done in generator.generate(TEXTS)} == {ask.id for ask in TEXTS}
    assert max(sizes[-3:]) <= 2
    limit = 0
    with pytest.raises(ResourceError, match=r"message 'a3' does not fit"):
        list(generator.generate(TEXTS))


def test_the_identity_says_what_decides_an_answer(toy: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    one, other = (LocalGenerator(*toy, Sampling(max_tokens=n)).identity for n in (8, 9))
    assert json.loads(json.dumps(one)) == one
    assert {name for name in one if one[name] != other[name]} == {"sampling"}
    assert one["weights"] == toy[0].sha256
    assert LocalGenerator(*toy, template="raw").identity["tokenizer"] != one["tokenizer"]


def test_messages_that_cannot_be_asked(
    bytes_model: tuple[LoadedModel, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    generator = LocalGenerator(*bytes_model, Sampling(max_tokens=4000), template="raw")
    with pytest.raises(DataError, match=r"prompt 'long'.*tokens"):
        list(generator.generate([Ask("long", "x" * 200)]))
    assert list(generator.generate([])) == []
