"""Servers that attack whoever asks them: a catalogue of raw answers, each with what must come of it."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

KEY = "sk-live-0123456789abcdefXYZ"
FINE = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()

Act = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Case:
    """A server.

    Attributes:
        id: Its name.
        after: What it is after.
        act: What it does with a connection on which a request has arrived.
        refused: Pattern of the message; None where its answer `hi` is read.
    """

    id: str
    after: str
    act: Act
    refused: str | None


def says(head: str, body: bytes = b"", *, length: int | None = None) -> Act:
    """Sends an answer at once. `head` is status and headers, a line each."""
    lines = "\r\n".join([f"HTTP/1.1 {head.splitlines()[0]}", *head.splitlines()[1:]])
    sized = f"{lines}\r\nContent-Length: {len(body) if length is None else length}\r\nConnection: close\r\n\r\n"
    return lambda connection: connection.sendall(sized.encode("latin-1") + body)


def endless(head: bytes, piece: bytes, every: float = 0.0) -> Act:
    """Begins an answer and goes on for ever."""

    def act(connection: socket.socket) -> None:
        connection.sendall(head)
        stop = time.monotonic() + 20
        while time.monotonic() < stop:
            connection.sendall(piece)
            time.sleep(every)

    return act


_OPEN = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
_BOMB = gzip.compress(b'{"choices": [{"text": "' + b" " * 60_000_000 + b'"}]}', compresslevel=1)
_DEEP = b'{"choices": [{"text": "hi"}], "usage": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
_JSON = "200 OK\nContent-Type: application/json"

CASES = [
    Case("drip of the body", "keep a run waiting", endless(_OPEN, b" ", 0.05), "the answer was not there after"),
    Case("drip of the head", "keep a run waiting", endless(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05), "was not there"),
    Case("endless answer", "fill the memory", endless(_OPEN, b" " * 2**20), "longer than 16,777,216 bytes"),
    Case("endless head", "fill the memory", endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 2**16), "RemoteProtocolError"),
    Case("endless refusal", "fill the memory", endless(_OPEN.replace(b"200", b"403"), b"x" * 2**20), "longer than"),
    Case("gzip bomb", "fill the memory", says(f"{_JSON}\nContent-Encoding: gzip", _BOMB), "longer than"),
    Case("gzip bomb in a refusal", "fill the memory", says("401 No\nContent-Encoding: gzip", _BOMB), "longer than"),
    Case("gzip", "nothing", says(f"{_JSON}\nContent-Encoding: gzip", gzip.compress(FINE)), None),
    Case("bad gzip", "end in a traceback", says(f"{_JSON}\nContent-Encoding: gzip", FINE), "not packed as it says"),
    Case("half a gzip", "as above", says(f"{_JSON}\nContent-Encoding: gzip", gzip.compress(FINE)[:40]), "missing"),
    Case("unknown packing", "as above", says(f"{_JSON}\nContent-Encoding: br", FINE), "packed as 'br'"),
    Case("charset=hex", "as above", says("403 No\nContent-Type: text/plain; charset=hex", b"secret"), "403 secret"),
    Case("charset=zlib", "as above", says("403 No\nContent-Type: text/plain; charset=zlib", b"no"), "403 no"),
    Case("charset=idna", "as above", says("500 No\nContent-Type: text/plain; charset=idna", b"\xff"), "500 \ufffd"),
    Case("charset=hex of an answer", "as above", says("200 OK\nContent-Type: text/json; charset=hex", FINE), None),
    Case("invalid UTF-8", "as above", says(_JSON, FINE.replace(b"hi", b"\xff\xfe")), "no answer of the expected form"),
    Case("half a UTF-16", "as above", says(_JSON, b"\xff\xfe{"), "no answer of the expected form"),
    Case("deep nesting", "as above", says(_JSON, _DEEP), "no answer of the expected form"),
    Case("a number of a million digits", "as above", says(_JSON, b"1" * 10**6), "no answer of the expected form"),
    Case("too short a length", "a wrong answer", says(_JSON, FINE, length=20), "no answer of the expected form"),
    Case("too long a length", "a wrong answer", says(_JSON, FINE, length=5000), "RemoteProtocolError"),
    Case("a length below nothing", "a wrong answer", says(_JSON, FINE, length=-5), "RemoteProtocolError"),
    Case("no HTTP", "a wrong answer", lambda connection: connection.sendall(b"\x16\x03\x01\r\n\r\n"), "ProtocolError"),
    Case("redirect to another host", "have the key sent on", says("307 On\nLocation: http://203.0.113.9/v1"),
         r"another place \(307\).*http://203.0.113.9/v1"),
    Case("redirect to a file", "read a file", says("302 On\nLocation: file:///etc/passwd"), "another place"),
    Case("redirect to nowhere", "end in a traceback", says("301 On"), "another place.*nowhere"),
    Case("redirect to itself", "keep a run waiting", says("308 On\nLocation: /v1/chat/completions"), "another place"),
    Case("too long, says a 401", "an answer that was never given", says("401 No", b"maximum context length"), "401"),
    Case("too long, says a 403", "the same", says("403 No", b"context_length_exceeded"), "refuses the request: 403"),
    Case("too long, says a 404", "the same", says("404 No", b"context_length_exceeded"), "refuses the request: 404"),
]  # fmt: skip
"""None of these may end in anything but an answer or an error of polysafe, in bounded time and memory."""


def echoes(status: str, spelt: Callable[[str], str]) -> Act:
    """Says the key back, in an error or, with 200, in an answer."""
    said = f"You sent: Authorization: Bearer {spelt(KEY)}!"
    body = json.dumps({"choices": [{"message": {"content": said}}]}) if status.startswith("200") else said
    return says(status, body.encode())


@contextmanager
def attacking(act: Act) -> Iterator[str]:
    """The address of a server that does this with every request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, act), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _serve(listener: socket.socket, act: Act) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_attack, args=(connection, act), daemon=True).start()


def _attack(connection: socket.socket, act: Act) -> None:
    with connection, suppress(OSError):
        _read_request(connection)
        act(connection)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(2**16):
            pass


def _read_request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(2**16)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(2**16)
