"""Keys of servers: environment variables, and where they may be sent.

A recipe comes from anybody, and the environment holds keys of everything. So a recipe only proposes: a key is sent if
the user allowed its name, on the command line (`--key`), in `$POLYSAFE_KEYS`, or in a program; and to nobody who could
listen on the way.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from polysafe.errors import RecipeError
from polysafe.secret import keep_secret

VARIABLE = "POLYSAFE_KEYS"
"""Environment variable with the names that a user allows, separated by commas; `NAME@HOST` for one host alone."""

_BATCH = "batch+"


def allow_keys(names: Iterable[str]) -> None:
    """Allows recipes to have keys sent, for the rest of this process and of those that it starts.

    Args:
        names: Environment variables, or `NAME@HOST`.
    """
    os.environ[VARIABLE] = ",".join(sorted(_allowed() | {name.strip() for name in names}))


@contextmanager
def allowed_keys(*names: str) -> Iterator[None]:
    """Within it, recipes may have these keys sent; `NAME@HOST` to one host alone."""
    before = os.environ.get(VARIABLE)
    allow_keys(names)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _allowed() -> frozenset[str]:
    return frozenset(filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))))


def require_allowed(name: str, url: str) -> None:
    """Refuses a key that a recipe names and its user did not.

    Args:
        name: The environment variable.
        url: Where the recipe wants it sent.

    Raises:
        RecipeError: Nobody allowed it.
    """
    host = host_of(url)
    if not {name, f"{name}@{host}"} & _allowed():
        raise RecipeError(
            f"the recipe wants the key in the environment variable {name} sent to {host}, which you did not allow",
            remedy=f"if you trust both with it, give --key {name}, or put {name}@{host} into {VARIABLE}",
        )


def read_key(name: str, url: str) -> str:
    """The key in an environment variable, for a server.

    Args:
        name: The environment variable.
        url: Address of the server.

    Raises:
        RecipeError: The variable is not set, its value cannot be sent, or somebody could read it on the way.
    """
    key = os.environ.get(name, "")
    if not key:
        raise RecipeError(f"the environment variable {name} holds no key", remedy=f"export {name}=…")
    keep_secret(key)
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RecipeError(
            f"the environment variable {name} holds no key: there is a space, a line break or a letter in it that no "
            "key has",
            remedy=f"export {name}=… with the key alone",
        )
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise RecipeError(
            f"the key in {name} would be sent to {host_of(url)} for all on the way to read: http is not encrypted",
            remedy="use https, or a tunnel to a port of this machine",
        )
    return key


def split_address(address: str) -> tuple[str, bool]:
    """The address of a server, and whether it is to be asked in batches: `batch+https://…`."""
    return address.removeprefix(_BATCH), address.startswith(_BATCH)


def host_of(url: str) -> str:
    """The host of an address, with its port where one is named; empty where it is no address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    name = parts.hostname or ""
    return name if port is None else f"{name}:{port}"


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
