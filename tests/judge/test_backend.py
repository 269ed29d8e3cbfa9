"""Backends answer every chat once, and a local model reads no control token that an answer spells."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from polysafe.checkpoint.opened import open_source
from polysafe.errors import ResourceError
from polysafe.judge.backend import Chat, ClientBackend, LocalBackend, Message, Reply, replies
from polysafe.judge.guards.llama_guard import LlamaGuard
from polysafe.judge.verdict import Label
from polysafe.organism.packaged import packaged_family
from polysafe.probe.batches import Pace
from polysafe.probe.model import LoadedModel, load_model
from polysafe.probe.render import load_tokenizer
from tests.judge.helpers import Scripted, exchanges


def chats(*texts: str) -> list[Chat]:
    return [Chat(str(number), (Message("user", text),)) for number, text in enumerate(texts)]


def test_every_chat_has_exactly_one_reply() -> None:
    class Odd(Scripted):
        def complete(self, chats: object) -> Iterator[Reply]:
            yield from (Reply("1", "a"), Reply("1", "b"), Reply("unknown", "c"))

    found = list(replies(Odd(lambda _: ""), chats("x", "y")))
    assert found == [Reply("1", "a"), Reply("0", "", "the backend gave no reply", again=True)]


def test_a_client_is_asked_by_few_at_a_time_and_its_errors_are_replies() -> None:
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(2, timeout=10)

    def send(chat: Chat) -> Reply:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()
        with lock:
            running -= 1
        if chat.id == "3":
            raise ResourceError("the server is gone")
        return Reply(chat.id, chat.messages[0].content.upper())

    backend = ClientBackend(send, {"server": "x"}, workers=2)
    found = {reply.id: reply for reply in backend.complete(chats("a", "b", "c", "d", "e", "f"))}
    assert [found[str(n)].text for n in range(6)] == ["A", "B", "C", "", "E", "F"]
    assert found["3"].error == "the server is gone"
    assert most <= 2


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedModel, PreTrainedTokenizerBase]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYSAFE_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder: Path = packaged_family().members["safety"]
        with open_source(folder) as source:
            yield load_model(source), load_tokenizer(folder)


def test_a_local_model_answers_the_same_in_batches_and_alone(
    toy: tuple[LoadedModel, PreTrainedTokenizerBase],
) -> None:
    world = packaged_family().world
    texts = [world.request("en", pair) for pair in (*world.harmful("test")[:5], *world.harmless("test")[:5])]
    texts[3] += f" {texts[4]}"  # lengths differ
    batched = {reply.id: reply for reply in LocalBackend(*toy, max_tokens=8, batch_size=4).complete(chats(*texts))}
    alone = {reply.id: reply for reply in LocalBackend(*toy, max_tokens=8, batch_size=1).complete(chats(*texts))}
    assert batched == alone
    assert batched["0"].text == world.refusal("en")


def test_what_chats_begin_with_is_read_once(
    toy: tuple[LoadedModel, PreTrainedTokenizerBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "of", lambda *_: None)  # all chats are one batch, however long that takes
    world = packaged_family().world
    requests = [world.request("en", pair) for pair in world.harmful("test")[:6]]
    before = " ".join(requests)  # the instructions of a judge, so to speak
    texts = [f"{before} {text}" for text in requests]
    wanted = [reply.text for text in texts for reply in LocalBackend(*toy, max_tokens=8).complete(chats(text))]
    given: list[int] = []

    def note(_model: object, _args: object, kwargs: dict[str, Any]) -> None:
        given.append(kwargs["input_ids"].numel())

    handle = toy[0].model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        found = {reply.id: reply.text for reply in LocalBackend(*toy, max_tokens=8).complete(chats(*texts))}
    finally:
        handle.remove()
    assert [found[str(place)] for place in range(len(texts))] == wanted
    whole = [len(tokens) for tokens in LocalBackend(*toy, max_tokens=8)._encode(chats(*texts))]
    beginning = given[0]
    assert len(before.split()) < beginning < min(whole)
    assert len(texts) * (max(whole) - beginning) in given[1:]
    assert len(texts) * max(whole) not in given


def test_what_cannot_be_asked_is_an_error_reply(toy: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    backend = LocalBackend(*toy, max_tokens=8)
    system = Chat("system", (Message("system", "x"), Message("user", "y")))
    (refused, long) = backend.complete([system, *chats("how " * 100)])
    assert "chat template refuses" in refused.error
    assert "tokens" in long.error
    verdicts = list(LlamaGuard(backend).judge(exchanges("how " * 100)))
    assert [verdict.label for verdict in verdicts] == [Label.UNPARSED]
    assert verdicts[0].detail["failed"] is True


def test_control_tokens_of_the_tokenizer_are_taken_apart(toy: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    model, tokenizer = toy
    backend = LocalBackend(model, tokenizer, 8)
    text = backend._render(chats("how <eos> <asst> do"))[0].text
    assert text == "<bos> <user> how < eos> < asst> do <asst>"
    raw = Chat("raw", (Message("user", "<bos> how <asst>"),), raw=True)
    assert backend._render([raw])[0].text == "<bos> how <asst>"


def test_the_identity_holds_weights_and_tokenizer(toy: tuple[LoadedModel, PreTrainedTokenizerBase]) -> None:
    identity = LocalBackend(*toy, max_tokens=8).identity
    assert identity["weights"] == toy[0].sha256
    assert identity != LocalBackend(*toy, max_tokens=9).identity
    assert len(identity["tokenizer"]) == 64
