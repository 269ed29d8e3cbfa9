"""A real server, `transformers serve`, with the packaged family: the same answers as in this process, and a crash."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.utils.import_utils import is_serve_available
from typer.testing import CliRunner

from polysafe.checkpoint.opened import open_source
from polysafe.cli.app import app
from polysafe.errors import ResourceError
from polysafe.evaluate.model_run import ModelRun
from polysafe.evaluate.opening import open_model
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Ask, Completion, Generator, Sampling
from polysafe.generate.local import LocalGenerator
from polysafe.generate.server import ServerGenerator
from polysafe.organism.packaged import packaged_family
from polysafe.organism.prompts import organism_prompts
from polysafe.probe.model import load_model
from polysafe.probe.render import load_tokenizer
from polysafe.workflows.audit import audit
from tests.generate.transformers_serve import TransformersServe

pytestmark = [
    pytest.mark.skipif(not is_serve_available(), reason="transformers serve is not installed: transformers[serving]"),
]

BASE = packaged_family().members["base"]
LANGUAGES = ("en", "qac", "qad")
WORKERS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersServe]:
    torch.set_num_threads(1)
    with TransformersServe(BASE, tmp_path_factory.mktemp("server") / "log.txt") as running:
        running.wait()
        yield running


def answers(generator: Generator, asks: list[Ask]) -> dict[str, Completion]:
    found = list(generator.generate(asks))
    assert Counter(each.id for each in found) == Counter(ask.id for ask in asks)
    return {each.id: each for each in found}


@pytest.mark.parametrize("budget", [8, 3])
def test_a_served_model_gives_the_answers_of_the_same_model_in_this_process(
    server: TransformersServe, budget: int
) -> None:
    prompts = organism_prompts(packaged_family().world).select(LANGUAGES, 6).prompts
    asks = [Ask(prompt.id, prompt.text) for prompt in prompts]
    sampling = Sampling(max_tokens=budget)
    with ChatClient(server.url, str(BASE)) as client:
        served = answers(ServerGenerator(client, sampling), asks)
    with open_model(BASE, sampling) as opened:
        local = answers(opened.generator, asks)
    for ask in asks:
        one, other = served[ask.id], local[ask.id]
        assert (one.text, one.tokens) == (other.text, other.tokens)
        # An answer that ends with the very last token of the budget was cut off, says the server.
        assert one.ending == other.ending or (one.ending == "length" and one.tokens == budget)
    assert len({each.text for each in local.values()}) > 3


def test_plain_text_is_continued_without_a_template(server: TransformersServe) -> None:
    """What guards need that have no chat template."""
    prompt = f"<bos> {organism_prompts(packaged_family().world).select(('en',), 1).prompts[0].text}"
    with ChatClient(server.url, str(BASE)) as client, open_source(BASE) as source:
        local = LocalGenerator(load_model(source), load_tokenizer(BASE), Sampling(max_tokens=3), template="raw")
        (wanted,) = local.generate([Ask("p", prompt)])
        reply = client.complete(prompt, Sampling(max_tokens=3))
    assert (reply.text, reply.tokens) == (wanted.text, wanted.tokens)


def test_an_audit_survives_a_server_that_dies(server: TransformersServe, tmp_path: Path) -> None:
    dead: list[int] = []

    def crash(what: str, done: int, total: int) -> None:
        if what == "answers" and done == total // 3 and not dead:
            dead.append(done)
            server.kill()
            server.start()  # comes back while the audit knocks

    def audited(model: str | Path, name: str, progress: Callable[[str, int, int], None] = lambda *_: None) -> ModelRun:
        return audit(
            model,
            safety=["organism"],
            judge="organism",
            languages=LANGUAGES,
            limit=16,
            family=BASE,
            output=tmp_path / name,
            cache=tmp_path / f"{name}.sqlite",
            progress=progress,
        ).run

    before = server.answered
    try:
        served = audited(server.spec, "served", crash)
    except ResourceError:  # on a busy machine the server is back after the last attempt
        server.wait()
        served = audited(server.spec, "served", crash)
    local = audited(BASE, "local")
    assert dead
    assert len(served.records) == 48
    assert [r.prompt for r in served.records] == [r.prompt for r in local.records]
    assert [r.completion.text for r in served.records] == [r.completion.text for r in local.records]
    assert served.rates() == [replace(rate, model=served.name) for rate in local.rates()]
    # Whoever was in flight is asked again, and nobody else.
    assert 48 <= server.answered - before <= 48 + WORKERS


def test_the_command_line_audits_a_served_model(
    server: TransformersServe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    server.wait()
    given = ["--judge", "organism", "--family", str(BASE), "--safety", "organism", "--languages", "en,qac"]
    given += ["--limit", "6", "--output", str(tmp_path / "run"), "--json"]
    result = CliRunner().invoke(app, ["audit", server.spec, *given])
    assert result.exit_code == 0, result.output
    rates = {(row["language"], row["metric"]): row["rate"] for row in json.loads(result.stdout)["rates"]}
    assert (rates["en", "unsafe"], rates["qac", "unsafe"]) == (0.0, 1.0)
