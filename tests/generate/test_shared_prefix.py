"""A beginning that prompts share is run once, and answers are those of prompts that are run whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.generate.shared_prefix import LEAST
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from tests.architectures.made import make, text_config
from tests.byte_level import save_byte_model

BEGINNING = "Say whether the answer is safe. " * 2
SHARED = 1 + len(BEGINNING)
"""Its tokens: the beginning of the sequence, and a byte each."""
ENDS = ("a", "bread and water", "q" * 17, "క")
Opened = tuple[LoadedModel, PreTrainedTokenizerBase]


def opened(folder: Path) -> Iterator[Opened]:
    torch.set_num_threads(1)
    with open_source(folder) as source:
        yield load_model(source), load_tokenizer(folder)


@pytest.fixture(scope="module")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    yield from opened(save_byte_model(tmp_path_factory.mktemp("bytes")))


class Seen:
    """How many tokens a model was given, beside the answers of it."""

    def __init__(self, model: LoadedModel, tokenizer: PreTrainedTokenizerBase, **settings: Any) -> None:
        self.tokens: list[int] = []
        self._handle = model.model.register_forward_pre_hook(self._hook, with_kwargs=True)
        self._generator = LocalGenerator(model, tokenizer, Sampling(max_tokens=5), template="raw", **settings)

    def answers(self, *texts: str) -> dict[str, str]:
        self.tokens.clear()
        return {each.id: each.text for each in self._generator.generate([Ask(text, text) for text in texts])}

    def end(self) -> None:
        self._handle.remove()

    def _hook(self, _model: object, _args: object, kwargs: dict[str, Any]) -> None:
        self.tokens.append(kwargs["input_ids"].numel())


@pytest.fixture
def seen(bytes_model: Opened) -> Iterator[Seen]:
    found = Seen(*bytes_model)
    yield found
    found.end()


def alone(seen: Seen, texts: tuple[str, ...]) -> dict[str, str]:
    """The same, a prompt at a time, none of which shares anything."""
    return {name: answer for text in texts for name, answer in seen.answers(text).items()}


def test_answers_are_those_of_one_prompt_at_a_time(seen: Seen) -> None:
    texts = tuple(BEGINNING + end for end in ENDS)
    wanted = alone(seen, texts)
    assert seen.answers(*texts) == wanted
    first, compared, whole, asked, *_ = seen.tokens
    assert first == SHARED  # the beginning, once; then two prompts without it, beside two whole ones
    assert compared == 2 * len(ENDS[2])
    assert whole == 2 * (SHARED + len(ENDS[2]))
    assert asked == len(ENDS) * len(ENDS[2])


def test_all_batches_of_a_call_go_on_from_one_beginning(bytes_model: Opened) -> None:
    texts = tuple(BEGINNING + end for end in ENDS)
    seen = Seen(*bytes_model, batch_tokens=2 * (SHARED + len(ENDS[2]) + 5))
    wanted = alone(seen, texts)
    assert seen.answers(*texts) == wanted
    assert seen.tokens.count(SHARED) == 1
    assert seen.tokens.count(2 * (SHARED + len(ENDS[2]))) == 1  # compared once: the others are shorter
    seen.end()


def test_a_model_that_was_edited_meanwhile_reads_the_beginning_anew(bytes_model: Opened) -> None:
    texts = tuple(BEGINNING + end for end in ENDS)
    seen = Seen(*bytes_model)
    before = seen.answers(*texts)
    weight = bytes_model[0].model.get_parameter("model.layers.0.self_attn.v_proj.weight")
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(-3)
        assert seen.answers(*texts) == alone(seen, texts) != before
    finally:
        with torch.no_grad():
            weight.copy_(kept)
        seen.end()


def test_another_beginning_is_run_anew(seen: Seen) -> None:
    texts, others = (tuple(begins + end for end in ENDS) for begins in (BEGINNING, BEGINNING[::-1]))
    wanted = alone(seen, texts)
    seen.answers(*others)
    assert seen.answers(*texts) == wanted


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param([BEGINNING[: LEAST - 2] + end for end in "ab"], id="too little is shared"),
        pytest.param(["x" + BEGINNING, "y" + BEGINNING], id="nothing is shared"),
        pytest.param([BEGINNING], id="one prompt"),
    ],
)
def test_prompts_that_share_little_are_run_whole(seen: Seen, texts: list[str]) -> None:
    seen.answers(*texts)
    assert seen.tokens[0] == sum(1 + len(text) for text in texts)


def test_a_prompt_that_is_the_beginning_of_another_keeps_a_token_to_go_on_with(seen: Seen) -> None:
    texts = (BEGINNING, BEGINNING + "and more")
    wanted = alone(seen, texts)
    assert seen.answers(*texts) == wanted
    assert seen.tokens[0] == SHARED - 1


@pytest.mark.parametrize("family", ["mpt", "gemma2", "mamba"])
def test_a_model_that_minds_padding_in_the_middle_is_run_whole(family: str, tmp_path: Path) -> None:
    """MPT counts columns, Gemma 2 has windows, Mamba keeps a state instead of keys and values."""
    made = make(text_config(family, {}), tmp_path / "made")
    for model, tokenizer in opened(made.folders["base"]):
        seen = Seen(model, tokenizer)
        texts = tuple("w1 w2 w3 w4 w5 w6 w7 " + end for end in ("w9", "w8 w21 w33 w40 w3 w17"))
        wanted = alone(seen, texts)
        assert seen.answers(*texts) == wanted
        assert max(seen.tokens) == 2 * len(tokenizer(texts[1])["input_ids"])
