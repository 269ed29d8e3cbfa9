"""Log-likelihoods of answers: those of running each sequence alone, however they are batched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.errors import DataError
from polysafe.probe.likelihood import Likelihood, Scorer
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import continued, load_tokenizer, render
from tests.byte_level import POSITIONS, byte_tokenizer, save_byte_model
from tests.models import FAMILIES, tiny_model

REQUESTS = [
    ("Which?\nAnswer:", " A"),
    ("Which?\nAnswer:", " B"),
    ("Which?\nAnswer:", " neither of them"),
    ("ข้อใด ", "ก"),
    ("x" * 40, "y"),
    ("a", "bc"),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, PreTrainedTokenizerBase]]:
    torch.set_num_threads(1)
    folder = save_byte_model(tmp_path_factory.mktemp("bytes"))
    with open_source(folder) as source:
        yield load_model(source), load_tokenizer(folder)


def plainly(model: LoadedModel, whole: tuple[int, ...], begins: int) -> tuple[float, bool]:
    """One sequence, nothing shared, nothing padded."""
    with torch.no_grad():
        scores = model.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    places = range(begins, len(whole))
    total = sum(float(scores[place - 1, whole[place]]) for place in places)
    return total, all(int(scores[place - 1].argmax()) == whole[place] for place in places)


def scored(scorer: Scorer, requests: list[tuple[str, str]]) -> list[Likelihood | None]:
    found = dict(scorer.score(requests))
    assert sorted(found) == list(range(len(requests)))
    return [found[place] for place in range(len(requests))]


@pytest.mark.parametrize("batch_tokens", [1, 50, 100_000])
def test_every_sequence_alone(loaded: tuple[LoadedModel, PreTrainedTokenizerBase], batch_tokens: int) -> None:
    model, tokenizer = loaded
    found = scored(Scorer(model, tokenizer, template="raw", batch_tokens=batch_tokens), REQUESTS)
    for (prompt, answer), one in zip(REQUESTS, found, strict=True):
        whole = tuple(tokenizer(prompt + answer)["input_ids"])
        begins = len(tokenizer(prompt.rstrip())["input_ids"])
        assert one is not None
        total, greedy = plainly(model, whole, begins)
        assert one.total == pytest.approx(total, abs=1e-4)
        assert one.greedy == greedy
    assert len({one.tokens_sha256 for one in found if one is not None}) == len(REQUESTS)


def test_what_greedy_decoding_gives_is_greedy(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = loaded
    requests = []
    for prompt in map(chr, range(ord("a"), ord("z") + 1)):
        with torch.no_grad():
            best = int(model.model(torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1].argmax())
        answer = str(tokenizer.decode([best]))
        if answer.isascii() and tokenizer(answer, add_special_tokens=False)["input_ids"] == [best] != [0]:
            requests.append((prompt, answer))
    found = scored(Scorer(model, tokenizer, template="raw"), requests)
    assert len(found) > 3
    assert all(one is not None and one.greedy and one.total < 0 for one in found)


def test_what_does_not_fit_has_none(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    scorer = Scorer(*loaded, template="raw")
    fits = POSITIONS - 1  # the beginning of the sequence is one token
    found = scored(scorer, [("a" * fits, "b"), ("a" * fits, "bc"), ("a" * (fits + 1), "b"), ("a", "b")])
    assert [one is None for one in found] == [False, True, True, False]
    assert scored(scorer, [("a" * (fits + 1), "b")]) == [None]


def test_a_second_beginning_is_refused_as_everywhere(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    for request in (("<s>a", "b"), ("a", "<s>b")):
        with pytest.raises(DataError, match="has 2 beginning-of-sequence tokens"):
            scored(Scorer(*loaded, template="raw"), [request])


def test_answers_without_tokens_are_refused(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    with pytest.raises(DataError, match="has no token"):
        scored(Scorer(*loaded, template="raw"), [("a", "")])


def test_the_chat_template_is_that_of_prompts() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.content }}]\n{% endfor %}"
    prompts = render(tokenizer, {"p": "hello"})
    ((whole, begins),) = continued(tokenizer, prompts, [(0, "A")])
    assert whole == (*prompts.tokens[0], *tokenizer("A", add_special_tokens=False)["input_ids"])
    assert begins == len(prompts.tokens[0]) - 1  # the line feed belongs to the answer
    assert whole.count(0) == 1


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "phi3"])
def test_any_architecture(family: str, tmp_path: Path) -> None:
    assert family in FAMILIES
    folder = tiny_model(family, layers=2, dtype=torch.float32).save(tmp_path / family)
    with open_source(folder) as source:
        model, tokenizer = load_model(source), load_tokenizer(folder)
        requests = [("w3 w4 w5", " w6"), ("w3 w4 w5 w9 w9", " w7 w8"), ("w4", " w6")]
        for (prompt, answer), one in zip(
            requests, scored(Scorer(model, tokenizer, template="raw"), requests), strict=True
        ):
            whole = tuple(tokenizer(prompt + answer)["input_ids"])
            assert one is not None
            assert one.total == pytest.approx(plainly(model, whole, len(prompt.split()))[0], abs=1e-4)


@pytest.mark.fault(19, "every field of the identity")
def test_identities_differ_by_template(loaded: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    raw, chat = (Scorer(*loaded, template=template).identity for template in ("raw", "chat"))
    assert raw["weights"] == chat["weights"]
    assert raw["tokenizer"] != chat["tokenizer"]
