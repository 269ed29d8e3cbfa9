"""Fixtures of the tests of the engine."""

from __future__ import annotations

import pytest

from tests.models import Trio, trio


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests are remembered in a folder of the test's own."""
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    """A trio that many tests read and none changes."""
    return trio(tmp_path_factory.mktemp("llama"), layers=8)
