"""What a fuzzed parser is, and what must hold of it for every input."""

from __future__ import annotations

import atexit
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import FrameType
from typing import NoReturn

from polysafe.errors import PolysafeError

Parser = Callable[[bytes], object]

SECONDS = 10
"""Processor time of one input. Sound ones take milliseconds; what passes this would go on for minutes."""
MEMORY = 1 << 30
"""Bytes that one input may take beyond what the process has."""
CORPUS = Path(__file__).parent / "corpus"
"""Inputs that once were handled wrongly, in a folder for each target."""


@dataclass(frozen=True)
class Target:
    """A parser of bytes that somebody else made.

    Attributes:
        name: Its name, and that of the folder of its corpus.
        make: Makes the parser and its seeds, at least one of which is sound.
        form: How its inputs are built, for mutations that keep them so: a name in `mutate.FORMS`.
        words: Pieces of its language.
        inputs: Number of mutated inputs that the suite tries; slow parsers have fewer.
    """

    name: str
    make: Callable[[], tuple[Parser, Sequence[bytes]]]
    form: str = "json"
    words: tuple[bytes, ...] = ()
    inputs: int = 2000

    @cached_property
    def _made(self) -> tuple[Parser, tuple[bytes, ...]]:
        parser, seeds = self.make()
        return parser, tuple(seeds)

    @property
    def seeds(self) -> tuple[bytes, ...]:
        """What is mutated."""
        return self._made[1]

    @property
    def corpus(self) -> tuple[bytes, ...]:
        """Inputs that once were handled wrongly."""
        return tuple(file.read_bytes() for file in sorted((CORPUS / self.name).glob("*")))

    def check(self, data: bytes) -> bool:
        """Parses, and tells whether the input was taken. Call it within `bounded`.

        Anything but an answer or an error of polysafe with a message is raised.
        """
        parser = self._made[0]
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            parser(data)
        except PolysafeError as refused:
            if not (refused.problem.strip() and str(refused)):
                raise WordlessError(repr(refused)) from refused
            return False
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return True


class WordlessError(Exception):
    """An error says nothing."""


class OverlongError(Exception):
    """An input took more processor time than any may."""


@contextmanager
def bounded() -> Iterator[None]:
    """Within it, an input that takes too much time or memory ends in an exception."""
    import resource

    def overlong(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise OverlongError(f"more than {SECONDS} s of processor time")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before, pages = signal.signal(signal.SIGPROF, overlong), Path("/proc/self/statm")
    if pages.exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, before)


@cache
def _root() -> str:
    memory = Path("/dev/shm")
    root = tempfile.mkdtemp(prefix="polysafe-fuzz-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def folder(name: str) -> Path:
    """An empty folder of this process, which goes when the process ends."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_root()))
