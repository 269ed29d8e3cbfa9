"""`transformers serve` as a process of its own, on loopback, with a model in a folder and without the hub."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

PATIENCE = 300.0
"""Seconds that a server may take to come up on a busy machine."""
_PROGRAM = "from transformers.cli.transformers import main; main()"


class TransformersServe:
    """A server that can be killed and started again at the same address.

    Args:
        model: Folder of the model that it serves.
        log: File that gets what it prints, one line for every request that it answered among it.
    """

    def __init__(self, model: Path, log: Path) -> None:
        self.model, self.log = model, log
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
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, "serve", str(self.model), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
            )

    def wait(self) -> None:
        """Waits until it answers."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"the server does not come up:\n{self.log.read_text()}")

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
