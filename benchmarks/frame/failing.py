"""A server of a model on this machine that fails every tenth call, and remembers what it answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 10
"""One call of so many fails."""
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_FAULTS = (
    b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 429 Slower\r\nContent-Length: 0\r\n\r\n",
    _OK % (1, b"{"),
    b"",  # the connection is dropped
)


def answer_to(text: str) -> str:
    """What the model says to a prompt: every prompt has an answer of its own."""
    return f"{hashlib.sha256(text.encode()).hexdigest()} " + "placeholder " * 20


class FailingServer:
    """Counts what it answered, by the last message of the request.

    Attributes:
        answered: Prompt -> times that an answer to it was sent.
        calls: Requests.
        failed: Requests that were failed on purpose.
        url: Its address.
    """

    def __init__(self) -> None:
        self.answered: Counter[str] = Counter()
        self.calls = self.failed = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of one connection."""
        try:
            while True:
                reply = self._reply(await _body(reader))
                writer.write(reply)
                await writer.drain()
                if not reply:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _reply(self, body: bytes) -> bytes:
        self.calls += 1
        if self.calls % EVERY == 0:
            self.failed += 1
            return _FAULTS[self.failed % len(_FAULTS)]
        text = json.loads(body)["messages"][-1]["content"]
        self.answered[text] += 1
        choice = {"message": {"content": answer_to(text)}, "finish_reason": "stop"}
        content = json.dumps({"choices": [choice], "usage": {"completion_tokens": 20}}).encode()
        return _OK % (len(content), content)


async def _body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return await reader.readexactly(int(fields[b"content-length"]))


@contextmanager
def failing_server() -> Iterator[FailingServer]:
    """One that serves on a port of this machine for as long as the context lasts."""
    server, ready = FailingServer(), threading.Event()
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait()
    try:
        yield server
    finally:
        stop[0]()
        thread.join()
