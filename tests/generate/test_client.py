"""The client alone, against answers that a server could give: what is asked again, believed, read, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from polysafe.errors import RecipeError, ResourceError
from polysafe.generate.client import ChatClient, ChatReply, UnservedError
from polysafe.generate.completion import Sampling

URL = "http://localhost:8000/v1"
ASKED = [{"role": "user", "content": "hello"}]
FINE = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, **more: Any) -> tuple[ChatClient, list[float]]:
    """A client whose server is a function, and the waits that it makes."""
    waits: list[float] = []
    made = ChatClient(URL, "m", sleep=waits.append, **more)
    made.__dict__["_opened"] = httpx.Client(base_url=f"{URL}/", transport=httpx.MockTransport(streamed(answer)))
    return made, waits


def streamed(answer: Answer) -> Answer:
    """The answer as it comes from a network: in pieces that can be read once."""

    def stream(request: httpx.Request) -> httpx.Response:
        told = answer(request)
        return httpx.Response(told.status_code, headers=told.headers, content=iter([told.content]))

    return stream


def in_turn(*answers: httpx.Response | Exception) -> Answer:
    left = list(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        first = left.pop(0)
        if isinstance(first, Exception):
            raise first
        return first

    return answer


def fine() -> httpx.Response:
    return httpx.Response(200, json=FINE)


def test_what_is_sent_and_what_is_read() -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append({"path": request.url.path, **json.loads(request.content)})
        return fine()

    with client(answer)[0] as server:
        assert server.chat(ASKED, Sampling(max_tokens=5)) == ChatReply("hi", "stop", 2)
        server.complete("text", Sampling(max_tokens=5, temperature=0.7, seed=3))
    chat, text = sent
    assert chat == {"path": "/v1/chat/completions", "model": "m", "messages": ASKED, "max_tokens": 5,
                    "temperature": 0.0, "stream": False}  # fmt: skip
    assert (text["path"], text["prompt"], text["seed"]) == ("/v1/completions", "text", 3)
    assert "top_p" in text


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        ({"choices": [{"text": "x", "finish_reason": "length"}]}, ChatReply("x", "length", None)),
        ({"choices": [{"message": {"content": None}}]}, ChatReply("", "stop", None)),
        ({"choices": [{"text": ""}], "usage": {"completion_tokens": "many"}}, ChatReply("", "stop", None)),
    ],
)
def test_answers_of_other_servers_are_read(content: Any, reply: ChatReply) -> None:
    assert client(in_turn(httpx.Response(200, json=content)))[0].chat(ASKED, Sampling()) == reply


@pytest.mark.hostile("server")
@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"text": 5}]}', b'{"choices": [5]}']
)
def test_what_is_no_answer_is_asked_again(content: bytes) -> None:
    server, waits = client(in_turn(httpx.Response(200, content=content), fine()))
    assert server.chat(ASKED, Sampling()).text == "hi"
    assert len(waits) == 1


@pytest.mark.fault(21, "rate limits")
@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_after_the_wait_that_it_names(status: int) -> None:
    busy = [httpx.Response(status, headers={"retry-after": after}) for after in ("7", "soon", "9999", "-5")]
    server, waits = client(in_turn(*busy, fine()))
    assert server.chat(ASKED, Sampling()).text == "hi"
    assert waits[0] >= 7
    assert waits[2] == 60.0  # no server is waited for longer
    assert all(0 <= wait <= 60 for wait in waits)


@pytest.mark.fault(21, "retries are bounded")
def test_attempts_end() -> None:
    server, waits = client(lambda _: httpx.Response(500, text="overloaded"), attempts=4)
    with pytest.raises(UnservedError, match="gave no answer in 4 attempts; last: 500 overloaded") as caught:
        server.chat(ASKED, Sampling())
    assert len(waits) == 3
    assert caught.value.where == f"m@{URL}"


def test_a_server_that_never_listened_is_given_up_sooner_than_one_that_was_there() -> None:
    refused = httpx.ConnectError("refused")
    with pytest.raises(UnservedError, match="in 3 attempts; last: ConnectError"):
        client(in_turn(*[refused] * 9))[0].chat(ASKED, Sampling())
    server, _ = client(in_turn(fine(), *[refused] * 5, fine()))
    server.chat(ASKED, Sampling())
    assert server.chat(ASKED, Sampling()).text == "hi"
    with pytest.raises(UnservedError, match="in 8 attempts; last: ReadTimeout"):
        client(in_turn(*[httpx.ReadTimeout("slow")] * 8))[0].chat(ASKED, Sampling())


@pytest.mark.parametrize(("status", "kind"), [(401, UnservedError), (404, UnservedError), (400, ResourceError)])
def test_a_refusal_is_not_asked_again(status: int, kind: type[Exception]) -> None:
    server, waits = client(in_turn(httpx.Response(status, text="no" * 1000)))
    with pytest.raises(kind, match=f"refuses the request: {status}") as caught:
        server.chat(ASKED, Sampling())
    assert type(caught.value) is kind
    assert waits == []
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("said", ["maximum context length is 10", '{"code": "context_length_exceeded"}'])
def test_a_prompt_that_is_too_long_has_an_empty_answer(said: str) -> None:
    server, _ = client(in_turn(httpx.Response(400, text=said)))
    assert server.chat(ASKED, Sampling()) == ChatReply("", "length", 0)


@pytest.mark.hostile("key")
@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://", "http://user:secret@host/v1"])
def test_what_is_no_address_is_refused_and_no_password_is_shown(url: str) -> None:
    with pytest.raises(RecipeError, match="is no address of a server") as caught:
        ChatClient(url, "m")
    assert "secret" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(RecipeError, match="SOME_KEY holds no key"):
        ChatClient(URL, "m", key="SOME_KEY")
    monkeypatch.setenv("SOME_KEY", "secret")
    with ChatClient(URL, "m", key="SOME_KEY") as server:
        assert server._http.headers["authorization"] == "Bearer secret"
        assert "secret" not in repr(server)
        assert server.identity == {"engine": "server", "url": URL, "model": "m"}
    assert server._http.is_closed
