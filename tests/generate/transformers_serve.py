"""`transformers serve` as a process of its own, on loopback, with a model in a folder and without the hub."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.commands import begun

PATIENCE = 300.0
"""Seconds that a server may take to come up on a busy machine."""


def serve(words: Sequence[str]) -> None:
    """The program, without the hub, which it asks for what lies in a folder too."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    from transformers.cli.transformers import main

    sys.argv = ["transformers", "serve", *words]
    main()


class TransformersServe:
    """A server that can be killed and started again at the same address.

    Args:
        model: Folder of the model that it serves.
        log: File that gets what it prints, one line for every request that it answered among it.
    """

    def __init__(self, model: Path, log: Path) -> None:
        self.model, self.log = model, log
        self._life = ExitStack()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def spec(self) -> str:
        """What `polysafe audit` calls the model."""
        return f"{self.model}@{self.url}"

    @property
    def answered(self) -> int:
        """Chats that it answered, in all its lives."""
        return self.log.read_text().count('"POST /v1/chat/completions HTTP/1.1" 200')

    def start(self) -> None:
        """Starts it; it answers some seconds later."""
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--device", "cpu"]
        self._process = self._life.enter_context(begun(serve, [str(self.model), *options], said=self.log))

    def wait(self) -> None:
        """Waits until it answers."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.is_alive():
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"the server does not come up:\n{self.log.read_text()}")

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._life.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
