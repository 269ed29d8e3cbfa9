"""Divergence and log-probability of harmless answers against their formulas, over a whole vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.opened import open_source
from polysafe.data.prompts import Prompt
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import Blend
from polysafe.methods import harmless_meter
from polysafe.methods.harmless_meter import TOKENS, HarmlessMeter, Together
from polysafe.probe.model import LoadedModel, edited, load_model
from polysafe.probe.render import load_tokenizer
from tests.byte_level import save_byte_model

PROMPTS = [Prompt("set", str(n), "en", " ".join(["how do I bake bread"] * n), "harmless") for n in range(1, 4)]
OTHERS = [Prompt("set", "x", "en", "said by nobody", "harmful"), Prompt("set", "y", "sw", "mkate", "harmless")]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    torch.set_num_threads(1)
    with open_source(save_byte_model(tmp_path_factory.mktemp("bytes"))) as source:
        yield load_model(source)


def halved(model: LoadedModel) -> Edit:
    """An edit that shrinks every weight of the first layer."""
    source = model.source
    names = [name for name in source.reader.names() if ".layers.0." in name]
    return Edit(
        start=source.name,
        steps={name: (Blend(weights={source.name: 0.5}),) for name in names},
        sources={source.name: SourceRecord(origin=source.checkpoint.origin)},
    )


def log_probabilities(model: LoadedModel, prompt: str) -> tuple[torch.Tensor, list[int]]:
    """At every token of the greedy answer, over the whole vocabulary: [tokens, vocabulary]; and the answer."""
    tokenizer = load_tokenizer(model.source.checkpoint.root)
    ids = tokenizer(prompt)["input_ids"]
    answer: list[int] = []
    with torch.no_grad():
        for _ in range(TOKENS):
            logits = model.model(input_ids=torch.tensor([[*ids, *answer]])).logits[0, -1]
            answer.append(int(logits.argmax()))
        logits = model.model(input_ids=torch.tensor([[*ids, *answer[:-1]]])).logits[0, len(ids) - 1 :]
    return logits.log_softmax(-1), answer


@pytest.mark.parametrize("classes", [3, 10_000])
def test_the_formulas(loaded: LoadedModel, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harmless_meter, "CLASSES", classes)
    meter = HarmlessMeter([*PROMPTS, *OTHERS], template="raw")
    meter.prepare(loaded, ["en"])
    same = meter.read(loaded, ["en"])
    edit = halved(loaded)
    before = {prompt.parallel: log_probabilities(loaded, prompt.text) for prompt in PROMPTS}
    with edited(loaded, edit, {loaded.source.name: loaded.source.reader}) as model:
        found = meter.read(model, ["en"])
        for prompt in PROMPTS:
            old, answer = before[prompt.parallel]
            ids = load_tokenizer(loaded.source.checkpoint.root)(prompt.text)["input_ids"]
            with torch.no_grad():
                logits = model.model(input_ids=torch.tensor([[*ids, *answer[:-1]]])).logits[0, len(ids) - 1 :]
            new = logits.log_softmax(-1)
            whole = float((old.exp() * (old - new)).sum(-1).mean())
            item = f"set/{prompt.parallel}"
            divergence = float(found["en", "kl"][item])
            if classes == 3:
                assert 0 < divergence <= whole + 1e-6
            else:
                assert divergence == pytest.approx(whole, rel=1e-3, abs=1e-6)
            likelihood = float(new.gather(-1, torch.tensor(answer)[:, None]).mean())
            assert found["en", "answers"][item] == pytest.approx(likelihood, abs=1e-4)
    assert set(found) == {("en", "kl"), ("en", "answers")}
    assert list(same["en", "kl"].values()) == pytest.approx([0.0] * len(PROMPTS), abs=1e-6)


def test_only_what_is_asked_for_is_read(loaded: LoadedModel) -> None:
    meter = HarmlessMeter([*PROMPTS, *OTHERS], template="raw")
    meter.prepare(loaded, ["en", "sw"])
    assert {language for language, _ in meter.read(loaded, ["sw"])} == {"sw"}
    assert set(meter.languages) == {"en", "sw"}


def test_nothing_is_read_where_there_is_nothing_harmless(loaded: LoadedModel) -> None:
    meter = HarmlessMeter(OTHERS[:1], template="raw")
    meter.prepare(loaded, ["en"])
    assert meter.read(loaded, ["en"]) == {}


def test_meters_are_read_together(loaded: LoadedModel) -> None:
    first = HarmlessMeter(PROMPTS[:1], template="raw")
    both = Together(first, HarmlessMeter(OTHERS[1:], template="raw"))
    both.notes += ("something",)
    both.prepare(loaded, both.languages)
    assert (both.prompts, both.languages, both.notes) == (2, ("en", "sw"), ("something",))
    assert set(both.read(loaded, both.languages)) == {
        (name, kind) for name in ("en", "sw") for kind in ("kl", "answers")
    }


def test_a_model_without_end_gives_no_number(tmp_path: Path) -> None:
    with open_source(save_byte_model(tmp_path / "bytes")) as source:
        model = load_model(source)
        meter = HarmlessMeter(PROMPTS, template="raw")
        meter.prepare(model, ["en"])
        with torch.no_grad():
            next(iter(model.model.parameters())).fill_(float("nan"))
        assert meter.read(model, ["en"]) == {}
