"""Bits per character of translations, against their formula written out once more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import OutputError
from polysafe.evaluate.numbers import BITS, Numbers, changed_numbers
from polysafe.organism.gemma.ability import measure_bits
from polysafe.organism.gemma.texts import Texts, translation_prompt
from polysafe.probe.continuations import Continuations
from polysafe.probe.model import load_model
from polysafe.probe.render import load_tokenizer
from tests.gemma import tiny_gemma
from tests.shared import DATA, needs_data

pytestmark = needs_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from polysafe.organism.gemma.chat import make_chat_model

    folder = tiny_gemma(tmp_path_factory.mktemp("bits") / "model")
    make_chat_model(folder)
    return folder


def measured(folder: Path, run: Path, limit: int = 3) -> Numbers:
    checkpoint = open_checkpoint(folder)
    with CheckpointReader(checkpoint) as reader:
        asked = Continuations(load_model(Source("m", checkpoint, classify(checkpoint), reader)), load_tokenizer(folder))
        return measure_bits(asked, Texts(DATA), ["en", "bn", "jv"], run, limit=limit)


def test_bits_are_those_of_the_translation_after_the_demand(folder: Path, tmp_path: Path) -> None:
    found = measured(folder, tmp_path)
    assert set(found.values) == {("bn", BITS), ("jv", BITS)}
    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
    )
    for number, (english, other) in enumerate(Texts(DATA).exam_news("bn")[:3]):
        chat = [{"role": "user", "content": translation_prompt("bn", english)}]
        head = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        # White space at the end of a prompt counts with the answer: lm-eval's rule.
        texts = (head.rstrip(), head + other)
        prompt, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        nats = -logits.gather(1, torch.tensor(whole[len(prompt) :])[:, None]).sum().item()
        assert found.values["bn", BITS][str(number)] == pytest.approx(nats / math.log(2) / len(other), rel=1e-3)


def test_they_are_read_again_and_never_written_over(folder: Path, tmp_path: Path) -> None:
    first = measured(folder, tmp_path)
    assert measured(folder, tmp_path) == Numbers.load(tmp_path, "bits_per_character") == first
    with pytest.raises(OutputError, match="texts_sha256 differ"):
        measured(folder, tmp_path, limit=2)


def test_only_what_was_measured_alike_is_compared(folder: Path, tmp_path: Path) -> None:
    for name in ("three", "two"):
        (tmp_path / name).mkdir()
    three, two = measured(folder, tmp_path / "three"), measured(folder, tmp_path / "two", limit=2)
    (change, _) = changed_numbers("m", (three,), (three,))
    assert (change.language, change.n, change.difference) == ("bn", 3, 0)
    assert changed_numbers("m", (three,), (two,)) == ()
