"""What must not leave this machine by accident: its folders, its name, keys."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

_SOMEBODYS_FOLDER = re.compile(r"(?:/home/|/Users/|/root/|[A-Za-z]:\\+Users\\+)[^\s\"'<>`,:\\/]+")
_KEYS = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_SHORTEST_HOST = 5
"""Shorter names of hosts are words or parts of words."""


def leaks(text: str, model: Path, *, of_a_model: bool = False) -> Iterator[str]:
    """What a text says about this machine, in words; keys are never repeated.

    Args:
        text: Content of a file that is to be published.
        model: The folder of the model.
        of_a_model: Whether the text holds what models said, which may name folders of nobody.
    """
    if _KEYS.search(text):
        yield "something that looks like a secret key"
    for place in _places(model):
        if place in text:
            yield f"a folder of this machine ({place})"
            return
    found = None if of_a_model else _SOMEBODYS_FOLDER.search(text)
    if found:
        yield f"somebody's folder ({found[0]}…)"
    host = socket.gethostname()
    if len(host) >= _SHORTEST_HOST and re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", text):
        yield f"the name of this machine ({host})"


def _places(model: Path) -> list[str]:
    folders = dict.fromkeys((Path.home(), Path.home().resolve(), model.absolute().parent, model.resolve().parent))
    return [f"{folder}/" for folder in folders if len(folder.parts) > 1]
