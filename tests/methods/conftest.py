"""Fixtures of the tests of methods: opened sources, and trios that many tests read and none changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.lora import open_reader
from polysafe.checkpoint.opened import Source, Sources
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from tests.models import trio

Opener = Callable[[Mapping[str, Path]], Sources]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def _open(stack: ExitStack, paths: Mapping[str, Path]) -> Sources:
    checkpoints = {name: open_checkpoint(path) for name, path in paths.items()}
    return {
        name: Source(name, checkpoint, classify(checkpoint), stack.enter_context(open_reader(checkpoint)))
        for name, checkpoint in checkpoints.items()
    }


@pytest.fixture
def opened() -> Iterator[Opener]:
    """A function that opens folders as sources; they are closed after the test."""
    with ExitStack() as stack:
        yield lambda paths: _open(stack, paths)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """A Llama trio of eight layers in which safety, language and blend all occur."""
    with ExitStack() as stack:
        yield _open(stack, trio(tmp_path_factory.mktemp("llama"), layers=8).paths)
