"""No test reaches a host but this machine: who asks for another one is refused, and named.

In this process an audit hook sees every name that is looked up and every connection, whatever library makes it. The
proxy that this process and its children find in their environment notes who is asked for, and refuses.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import huggingface_hub
import psutil
import pytest

_HERE = frozenset(
    {"", "localhost", "0.0.0.0", "::"} | {each.address for found in psutil.net_if_addrs().values() for each in found}
)
_ASKED = re.compile(rb"^[A-Z]+ (?:https?://)?(\[[^\]]+\]|[^:/ ]+)")


class ForeignHostError(RuntimeError):
    """A test, or what it tests, asked for another host; no kind of error that a library takes for a bad connection."""


class Guard:
    """Notes the hosts that were asked for, and lets nobody reach them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        """For `sys.addaudithook`."""
        if event in {"socket.connect", "socket.sendto"}:
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) else ""  # the address of a Unix socket is a path
        elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
            host = arguments[0]
        else:
            return
        name = host.decode() if isinstance(host, bytes) else str(host or "")
        if not is_here(name):
            self.asked.append(name)
            raise ForeignHostError(f"a test may not reach {name}")

    def answer(self, listener: socket.socket) -> None:
        """Is the proxy: notes who is asked for, and refuses."""
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    found = _ASKED.match(connection.recv(4096))
                    self.asked.append(found[1].decode() if found else "a host, by a proxy")
                    connection.sendall(b"HTTP/1.1 403 Not in a test\r\nContent-Length: 0\r\n\r\n")


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    with suppress(ValueError):
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback or host in _HERE
    return host in _HERE


GUARD = Guard()
"""The one of this process."""
_PROXIES = tuple(spelt for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for spelt in (name, name.lower()))


def without_proxies(patch: pytest.MonkeyPatch) -> None:
    """Has names looked up and connections made in this process itself, where the audit hook sees them."""
    for name in _PROXIES:
        patch.delenv(name)
    huggingface_hub.close_session()  # the hub's client keeps the proxies that it was made with


@contextmanager
def guarded() -> Iterator[None]:
    """Within it, this process and those that it starts reach this machine alone."""
    sys.addaudithook(GUARD.hook)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=GUARD.answer, args=(listener,), daemon=True).start()
        for name in _PROXIES:
            patch.setenv(name, f"http://127.0.0.1:{listener.getsockname()[1]}")
        for spelt in ("NO_PROXY", "no_proxy"):
            patch.setenv(spelt, "127.0.0.1,localhost,::1")
        yield
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def asked_hosts() -> Iterator[list[str]]:
    """The hosts that are asked for within it, which is then no mistake. They are not reached."""
    before, found = len(GUARD.asked), list[str]()
    try:
        yield found
    finally:
        found += GUARD.asked[before:]
        del GUARD.asked[before:]


@contextmanager
def asks_nobody() -> Iterator[None]:
    """Fails where a host was asked for within it, though whoever asked kept silent about it."""
    with asked_hosts() as found:
        yield
    if found:
        pytest.fail(f"asked for {', '.join(dict.fromkeys(found))}; a test reaches this machine alone", pytrace=False)
