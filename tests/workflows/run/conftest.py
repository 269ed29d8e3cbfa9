"""Fixtures of the tests of running and applying: those of the engine, and what is read of weights."""

from __future__ import annotations

from collections import Counter

import pytest

from polysafe.checkpoint.reader import CheckpointReader
from polysafe.files import memory
from tests.engine.conftest import _own_cache, llama

__all__ = ["_own_cache", "bytes_read", "llama"]


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Folder -> bytes that were read of its tensors; what was read is believed of files that were made a moment ago."""
    found: Counter[str] = Counter()
    read = CheckpointReader.read_into

    def counted(reader: CheckpointReader, name: str, start: int, buffer: memoryview) -> None:
        found[reader.checkpoint.root.name] += len(buffer)
        read(reader, name, start, buffer)

    monkeypatch.setattr(CheckpointReader, "read_into", counted)
    monkeypatch.setattr(memory, "TICK", -1e6)
    return found
