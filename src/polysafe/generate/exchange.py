"""One request and its answer, bounded: in the time until the last byte, and in what is kept of it.

The timeouts of an HTTP client start anew with every byte, so that a server that sends one a minute is waited for
without end. Here one deadline holds for all reading and writing of a request, headers included.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    import httpx

LIMIT = 16 * 2**20
"""Most bytes of an answer, unpacked: a hundred thousand tokens, all of them escaped, are six million."""
_PACKED = {"gzip": 31, "x-gzip": 31, "deflate": 47}
_PIECE = 2**16

_due = threading.local()


class UnreadableError(Exception):
    """What a server sends is too long, or packed in a way that is not read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent.

    Attributes:
        status: Its code.
        headers: Its headers, names in small letters.
        content: Its body, unpacked.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The body as text, for messages; whatever charset it claims, it is read as UTF-8."""
        return self.content.decode("utf-8", "replace")


def exchange(
    client: httpx.Client,
    path: str,
    body: bytes | None,
    seconds: float,
    *,
    kind: str | None = None,
    limit: int = LIMIT,
) -> Answer:
    """Sends a request and reads its answer; nobody is followed to another address.

    Args:
        client: A client made by `bounded`.
        path: Where to, relative to the client's address.
        body: What is sent, by default JSON; None only asks for what is there.
        seconds: Longest time until the last byte of the answer.
        kind: Type of the body, where it is not JSON.
        limit: Most bytes of the answer, unpacked.

    Raises:
        httpx.TransportError: It did not arrive whole, or not in time.
        UnreadableError: It is too long, or packed in a way that is not read.
    """
    import httpx

    _due.at = time.monotonic() + seconds
    try:
        method, more = "GET" if body is None else "POST", {} if kind is None else {"Content-Type": kind}
        with client.stream(method, path, content=body, headers=more, follow_redirects=False) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            content = _unpacked(_watched(response.iter_raw(_PIECE)), headers.get("content-encoding", ""), limit)
            return Answer(response.status_code, headers, content)
    except httpx.TimeoutException as error:
        if time.monotonic() < _due.at:
            raise
        raise httpx.ReadTimeout(f"the answer was not there after {seconds:g} s") from error
    finally:
        del _due.at


def _watched(pieces: Iterable[bytes]) -> Iterable[bytes]:
    import httpx

    for piece in pieces:
        if time.monotonic() > _due.at:
            raise httpx.ReadTimeout("")
        yield piece


def _unpacked(pieces: Iterable[bytes], packing: str, limit: int) -> bytes:
    packing = packing.strip().lower()
    if packing not in {"", "identity", *_PACKED}:
        raise UnreadableError(f"an answer is packed as {packing[:20]!r}, which was not asked for")
    unpacker = zlib.decompressobj(_PACKED[packing]) if packing in _PACKED else None
    content = bytearray()
    for piece in pieces:
        try:
            content += piece if unpacker is None else unpacker.decompress(piece, limit + 1 - len(content))
        except zlib.error as error:
            raise UnreadableError(f"an answer is not packed as it says: {error}") from error
        if len(content) > limit:
            raise UnreadableError(f"an answer is longer than {limit:,} bytes")
    if unpacker is not None and not unpacker.eof:
        raise UnreadableError("an answer is not packed as it says: its end is missing")
    return bytes(content)


def bounded(client: httpx.Client) -> httpx.Client:
    """The client, all of whose connections keep to the deadline of `exchange`."""
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)
    return client


def _left(timeout: float | None) -> float | None:
    """Seconds that a step may take: the shorter of its own time and what is left of the request's."""
    due: float | None = getattr(_due, "at", None)
    if due is None:
        return timeout
    left = max(due - time.monotonic(), 1e-3)
    return left if timeout is None else min(timeout, left)


class _Backend:
    """Opens connections that keep to the deadline; an `httpcore.NetworkBackend`."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **more: Any) -> _Stream:
        return _Stream(self._backend.connect_tcp(host, port, timeout=_left(timeout), **more))

    def connect_unix_socket(self, path: str, timeout: float | None = None, **more: Any) -> _Stream:
        return _Stream(self._backend.connect_unix_socket(path, timeout=_left(timeout), **more))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream:
    """A connection that keeps to the deadline; an `httpcore.NetworkStream`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._stream.read(max_bytes, _in_time(timeout))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _in_time(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _in_time(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _in_time(timeout: float | None) -> float | None:
    """As `_left`, and an end where nothing is left."""
    import httpcore

    due = getattr(_due, "at", None)
    if due is not None and time.monotonic() >= due:
        raise httpcore.ReadTimeout("the time is up")
    return _left(timeout)
