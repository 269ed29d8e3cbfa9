"""Programs of other people, such as chat templates and regular expressions, in a process that is held to bounds.

A model folder may hold programs. They are run where they can neither go on for ever nor fill the memory, open no file,
and know nothing of this process's environment: in a child with limits of its own, which is ended when it passes one.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import IO, Any

from polysafe.errors import CheckpointError

_LENGTH = 8
_ENVIRONMENT = ("PATH", "HOME", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_BEGIN = (
    "import json, sys; given = json.loads(sys.argv[1]); sys.path[:] = given['path']; "
    "from polysafe.confined import serve; serve(given['function'], given['seconds'], given['memory'])"
)


@dataclass
class Confined:
    """A function that is carried out in a process of its own, which is started once and kept.

    Attributes:
        function: The function, `module:name`; it takes and returns what JSON can hold.
        what: What is carried out, in words, for messages.
        seconds: Processor time that one call may take: another program's load makes no difference to it.
        memory: Bytes that the process may take beyond those that it starts with.
    """

    function: str
    what: str
    seconds: float = 20.0
    memory: int = 1 << 30
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _owner: int = field(default=0, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __call__(self, argument: object) -> Any:
        """What the function gives for an argument.

        Raises:
            CheckpointError: It took too much time or memory, or ended the process.
        """
        with self._lock:
            child = self._started()
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                _write(child.stdin, argument)
                reply = _read(child.stdout)
            except (OSError, ValueError):
                reply = None
            except BaseException:  # half an answer may be on its way
                self._end()
                raise
            if reply is None:
                raise CheckpointError(
                    f"{self.what} {self._reason(child)}",
                    remedy="it is a program of the model's publisher: use this model only if you trust them",
                )
        return reply["value"]

    def close(self) -> None:
        """Ends the process, if there is one; the next call starts another."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._owner == os.getpid() and self._child.poll() is None:
            return self._child
        if self._owner == os.getpid():
            self._end()
        path = [os.path.abspath(place) for place in sys.path if place]
        given = {"path": path, "function": self.function, "seconds": self.seconds, "memory": self.memory}
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._child = subprocess.Popen(  # noqa: S603  (this program itself)
            [sys.executable, "-I", "-W", "ignore", "-c", _BEGIN, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )
        self._owner = os.getpid()
        atexit.register(self.close)
        return self._child

    def _reason(self, child: subprocess.Popen[bytes]) -> str:
        """Why there is no answer."""
        try:
            code = child.wait(1)
        except subprocess.TimeoutExpired:
            code = None
        self._end()
        if code == -signal.SIGPROF:
            return f"does not end: it took more than {self.seconds:g} s of processor time"
        return f"ended its process; it may have asked for more than {self.memory >> 20} MiB of memory"

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        atexit.unregister(self.close)
        child.kill()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except OSError:  # what it was still to be told
                continue
        child.wait()


def serve(function: str, seconds: float, memory: int) -> None:
    """The life of the process: what is asked is answered until nobody asks any more.

    Args:
        function: The function, `module:name`.
        seconds: Processor time of a call.
        memory: Bytes beyond those that are taken already.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    module, _, name = function.partition(":")
    carry_out: Callable[[Any], object] = getattr(import_module(module), name)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    _limit(memory)
    while (argument := _read(asked)) is not None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = {"value": carry_out(argument["value"])}
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, answer)


def _limit(memory: int) -> None:
    """From now on no file is opened or written, no process started (but by root), and memory is bounded."""
    import resource

    taken = 0
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm", "rb") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
    limits = {"RLIMIT_AS": taken + memory, "RLIMIT_FSIZE": 0, "RLIMIT_NPROC": 0, "RLIMIT_NOFILE": 3, "RLIMIT_CORE": 0}
    for name, most in limits.items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        try:
            resource.setrlimit(getattr(resource, name), (most, most if hard < 0 else min(most, hard)))
        except (OSError, ValueError):  # not every system knows every limit
            continue


def _write(pipe: IO[bytes], value: object) -> None:
    _send(pipe, {"value": value})


def _send(pipe: IO[bytes], value: object) -> None:
    text = json.dumps(value).encode("ascii")
    pipe.write(len(text).to_bytes(_LENGTH, "little") + text)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Any:
    """What was sent; None where nothing more comes."""
    head = pipe.read(_LENGTH)
    length = int.from_bytes(head, "little")
    text = pipe.read(length) if len(head) == _LENGTH else b""
    return json.loads(text) if text and len(text) == length else None
