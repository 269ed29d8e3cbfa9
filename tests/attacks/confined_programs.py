"""What a program of somebody else would try in the process that it is confined to."""

from __future__ import annotations

import os


def opens(what: str) -> str:
    """Opens a file, or tells a secret."""
    try:
        if what == "the environment":
            return str(os.environ.get("POLYSAFE_TEST_TOKEN"))
        with open(what, "ab"):
            return "opened"
    except OSError as error:
        return f"refused: {error.strerror}"


def stubborn(argument: str) -> str:
    """Ends the process, or answers."""
    if argument == "exit":
        os._exit(3)
    return argument
