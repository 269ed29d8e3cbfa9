"""Answers that go on from a prompt that is read once score as answers that are read with their prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.errors import DataError
from polysafe.probe.continuations import Ask, Continuations
from polysafe.probe.likelihood import Scorer
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from tests.byte_level import POSITIONS, save_byte_model
from tests.models import tiny_model

ASKS = [
    ("Which?\nAnswer:", (" A", " B", " neither of them")),
    ("ข้อใด ", ("ก", "ขค")),
    ("x" * 40, ("y",)),
    ("a", ("bc", "b", "bcd", "no")),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, PreTrainedTokenizerBase]]:
    torch.set_num_threads(1)
    folder = save_byte_model(tmp_path_factory.mktemp("bytes"))
    with open_source(folder) as source:
        yield load_model(source), load_tokenizer(folder)


def check(continuations: Continuations, scorer: Scorer, asks: Sequence[Ask]) -> None:
    """Everything is scored, each answer as the other way scores it."""
    found = dict(continuations.score(asks))
    assert sorted(found) == list(range(len(asks)))
    for place, (text, answers) in enumerate(asks):
        expected = dict(scorer.score([(text, answer) for answer in answers]))
        for number, one in enumerate(found[place]):
            other = expected[number]
            assert other is not None
            assert one.total == pytest.approx(other.total, abs=1e-4)
            assert one.tokens >= 1


@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_bytes_of_any_script(loaded: tuple[LoadedModel, PreTrainedTokenizerBase], batch_tokens: int) -> None:
    continuations = Continuations(*loaded, template="raw", batch_tokens=batch_tokens)
    check(continuations, Scorer(*loaded, template="raw"), ASKS)
    assert {place: [one.tokens for one in row] for place, row in continuations.score(ASKS)}[3] == [2, 1, 3, 2]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3", "gpt2", "gpt_neox", "mixtral"])
def test_any_architecture(family: str, tmp_path: Path) -> None:
    folder = tiny_model(family, layers=2, dtype=torch.float32).save(tmp_path / family)
    asks = [("w3 w4 w5", (" w6", " w7 w8 w9")), ("w3 w4 w5 w9 w9", (" w7 w8", " w3")), ("w4", (" w6", " w6 w7"))]
    with open_source(folder) as source:
        model, tokenizer = load_model(source), load_tokenizer(folder)
        check(Continuations(model, tokenizer, template="raw"), Scorer(model, tokenizer, template="raw"), asks)


@pytest.mark.parametrize("length", [3, 7, 8, 20])
def test_a_window_that_is_shorter_than_the_prompt(length: int, tmp_path: Path) -> None:
    tiny = tiny_model("gemma2", layers=2, dtype=torch.float32)
    folder = replace(tiny, config={**tiny.config, "sliding_window": 8}).save(tmp_path / "gemma2")
    words = " ".join(f"w{3 + number % 30}" for number in range(length))
    asks = [(words, (" w6", " w7 w8 w9")), ("w4 w5", (" w6", " w6 w7"))]
    with open_source(folder) as source:
        model, tokenizer = load_model(source), load_tokenizer(folder)
        check(Continuations(model, tokenizer, template="raw"), Scorer(model, tokenizer, template="raw"), asks)


def test_what_does_not_fit_is_left_out(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    continuations = Continuations(*loaded, template="raw")
    fits = POSITIONS - 1 - 2  # the beginning of the sequence, and the answer
    asks = [("x" * fits, ("yz",)), ("x" * (fits + 1), ("yz",)), ("x" * (2 * POSITIONS), ("yz",)), ("x", ("yz",))]
    assert sorted(place for place, _ in continuations.score(asks)) == [0, 3]
    assert list(continuations.score([])) == []


def test_a_joined_token_at_the_border_is_scored_as_the_answers(tmp_path: Path) -> None:
    folder = save_byte_model(tmp_path / "bytes")
    with open_source(folder) as source:
        model, tokenizer = load_model(source), load_tokenizer(folder)
        # White space at the end of a prompt belongs to the answer.
        check(
            Continuations(model, tokenizer, template="raw"),
            Scorer(model, tokenizer, template="raw"),
            [("tell me \n", ("yes", "no, never"))],
        )


def test_an_answer_without_a_token_is_refused(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    with pytest.raises(DataError, match="has no token"):
        list(Continuations(*loaded, template="raw").score([("a", ("b", ""))]))
