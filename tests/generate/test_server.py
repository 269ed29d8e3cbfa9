"""A server that drops connections, is busy, breaks, hangs and talks nonsense: no message lost, none answered twice."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from polysafe.errors import RecipeError, ResourceError
from polysafe.generate.client import ChatClient
from polysafe.generate.completion import Ask, Sampling
from polysafe.generate.server import ServerGenerator

Fault = Callable[[BaseHTTPRequestHandler], None]


class Faulty:
    """Answers `echo: …`, but fails each message in some way before it does."""

    def __init__(self, faults: list[Fault], *, forever: bool = False) -> None:
        self.faults, self.forever = faults, forever
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.most = self.now = 0
        self.lock = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        with self.lock:
            self.bodies.append({**body, "authorization": handler.headers.get("Authorization"), "path": handler.path})
            turn = self.seen[text]
            self.seen[text] += 1
            self.now += 1
            self.most = max(self.most, self.now)
        number = sum(map(ord, text))
        try:
            if self.forever or turn < number % 3:
                self.faults[(number + turn) % len(self.faults)](handler)
                return
            with self.lock:
                self.answered[text] += 1
            choice = {"message": {"role": "assistant", "content": f"echo: {text}"}, "finish_reason": "stop"}
            send(handler, 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": 3}}))
        finally:
            with self.lock:
                self.now -= 1


def send(handler: BaseHTTPRequestHandler, status: int, text: str, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(text.encode())), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(text.encode())


def drop(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(2)


def half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    drop(handler)


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)
    drop(handler)


FAULTS: list[Fault] = [
    drop,
    half,
    lambda handler: send(handler, 429, "slow down", Retry_After="0.01"),
    lambda handler: send(handler, 500, "broken"),
    lambda handler: send(handler, 503, "<html>busy</html>"),
    lambda handler: send(handler, 200, "{"),
    lambda handler: send(handler, 200, '{"choices": []}'),
    lambda handler: send(handler, 200, "[1, 2]"),
    hang,
]


@contextmanager
def serving(faulty: Faulty) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            faulty.handle(self)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None: ...  # connections that the test drops

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


OPEN: list[ChatClient] = []


def client(url: str, **options: Any) -> ChatClient:
    OPEN.append(ChatClient(url, "m", **{"timeout": 0.3, "wait": 0.001, **options}))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        with OPEN.pop():
            pass


def test_every_message_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # not for a server on this machine
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    faulty = Faulty(FAULTS)
    asks = [Ask(f"a{n}", f"text {n}") for n in range(200)]
    with serving(faulty) as url:
        generator = ServerGenerator(client(url), workers=8)
        found = list(generator.generate(asks))
    assert Counter(each.id for each in found) == {ask.id: 1 for ask in asks}
    assert {each.id: each.text for each in found} == {ask.id: f"echo: {ask.text}" for ask in asks}
    assert all((each.ending, each.tokens) == ("stop", 3) for each in found)
    assert sum(faulty.seen.values()) > 300  # most messages failed at least once
    # a request that timed out may still be at work behind the ones in flight
    assert faulty.most <= 8 * 2


def test_threads_that_come_at_once_share_their_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[httpx.Client] = []
    make = httpx.Client

    def slow(**options: Any) -> httpx.Client:
        time.sleep(0.05)
        made.append(make(**options))
        return made[-1]

    monkeypatch.setattr(httpx, "Client", slow)
    asked = client("http://127.0.0.1:9/v1")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: asked._http, range(8)))
    assert len(made) == 1
    assert all(each is made[0] for each in found)


def test_a_server_that_never_recovers_ends_the_run_and_keeps_what_was_answered() -> None:
    broken = Faulty([lambda handler: send(handler, 500, "broken")], forever=True)
    slept: list[float] = []
    with serving(broken) as url:
        generator = ServerGenerator(client(url, attempts=3, wait=1.0, sleep=slept.append), workers=2)
        with pytest.raises(ResourceError, match=r"in 3 attempts; last: 500 broken; 5 of 5 messages are left"):
            list(generator.generate([Ask(str(n), str(n)) for n in range(5)]))
    assert sum(broken.seen.values()) <= 2 * 3
    assert all(0 <= seconds <= 4 for seconds in slept)
    assert len(slept) == 2 * sum(count == 3 for count in broken.seen.values())


def test_one_refused_message_loses_no_other() -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 400, '{"error": "prompt too long"}')

    faulty = Faulty([refuse])
    asks = [Ask("good", "\x03"), Ask("bad", "\x01"), *(Ask(f"later-{n}", "\x03" * (n + 1)) for n in range(20))]
    found: list[str] = []
    with serving(faulty) as url:
        answers = (each.id for each in ServerGenerator(client(url), workers=2).generate(asks))
        with pytest.raises(ResourceError, match=r"refuses the request: 400 .*prompt too long"):
            found.extend(answers)
    assert "good" in found
    assert "bad" not in found
    assert faulty.seen["\x01"] == 1  # asking again would not help


@pytest.mark.parametrize(
    "said",
    [
        '{"error": {"code": "context_length_exceeded", "message": "…"}}',
        '{"object": "error", "message": "This model\'s maximum context length is 64 tokens. You requested 90."}',
        '{"error": {"code": 400, "type": "exceed_context_size_error", "message": "request (90 tokens) exceeds …"}}',
    ],
)
def test_a_prompt_that_the_served_model_cannot_read_has_an_empty_answer(said: str) -> None:
    faulty = Faulty([lambda handler: send(handler, 400, said)])
    asks = [Ask("good", "\x03"), Ask("long", "\x01"), *(Ask(f"later-{n}", "\x03" * (n + 1)) for n in range(20))]
    with serving(faulty) as url:
        found = {each.id: each for each in ServerGenerator(client(url), workers=2).generate(asks)}
    assert (found["long"].text, found["long"].ending, found["long"].tokens) == ("", "length", 0)
    assert len(found) == len(asks)
    assert faulty.seen["\x01"] == 1


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(RecipeError, match="password") as refusal:
        ChatClient("http://:s3cret@host/v1", "m")
    assert "s3cret" not in str(refusal.value)


@pytest.mark.fault(21, "rate limits")
def test_a_busy_server_is_left_alone_as_long_as_it_says() -> None:
    slept: list[float] = []
    busy = Faulty([lambda handler: send(handler, 429, "", Retry_After="7")])
    with serving(busy) as url:
        reply = client(url, sleep=slept.append).chat([{"role": "user", "content": "\x01"}], Sampling())
    assert reply.text == "echo: \x01"
    assert slept == [7.0]


def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "secret-word")
    faulty = Faulty(FAULTS)
    with serving(faulty) as url:
        asked = client(url, key="SOME_KEY")
        generator = ServerGenerator(asked, Sampling(max_tokens=5), system="be brief", revision="1")
        list(generator.generate([Ask("a", "\x03")]))
        list(ServerGenerator(asked, Sampling(temperature=0.7, seed=3)).generate([Ask("a", "\x03")]))
    greedy, drawn = faulty.bodies
    assert greedy["path"] == "/v1/chat/completions"
    assert greedy["authorization"] == "Bearer secret-word"
    assert greedy["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "\x03"}]
    assert (greedy["model"], greedy["max_tokens"], greedy["temperature"], greedy["stream"]) == ("m", 5, 0.0, False)
    assert (drawn["temperature"], drawn["top_p"], drawn["seed"]) == (0.7, 1.0, 3)
    assert "secret-word" not in f"{asked!r} {dict(generator.identity)}"


def test_identities_differ_by_what_decides_an_answer() -> None:
    one = ChatClient("http://localhost:1/v1", "m")
    identities = [
        ServerGenerator(one).identity,
        ServerGenerator(one, revision="x").identity,
        ServerGenerator(one, Sampling(max_tokens=9)).identity,
        ServerGenerator(ChatClient("http://localhost:1/v1", "n")).identity,
        ServerGenerator(one, system="s").identity,
    ]
    assert len({json.dumps(each, sort_keys=True) for each in identities}) == len(identities)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http://", "http://user:word@host/v1"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(RecipeError, match="no address of a server"):
        ChatClient(url, "m")


def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(RecipeError, match="NO_SUCH_KEY holds no key"):
        ChatClient("http://localhost/v1", "m", key="NO_SUCH_KEY")


@pytest.mark.fault(21, "offline")
def test_no_server_at_all() -> None:
    with pytest.raises(ResourceError, match="gave no answer in 2 attempts; last: ConnectError"):
        client("http://127.0.0.1:1/v1", attempts=2).chat([{"role": "user", "content": "x"}], Sampling())
