"""A hub on this machine, a client that can reach nothing else, and a model to publish."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from polysafe.workflows.run import run_recipe
from tests.engine.recipes import SOUP, recipe_for
from tests.models import trio
from tests.publish.standin import StandIn, standin

CARD = "---\nlicense: {licence}\n---\n# Another model\n"


class _Clock:
    """Time without waiting, for the hub's client only."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(_http, "time", found)
    monkeypatch.setattr("polysafe.publish.hub.time", found)
    return found


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, clock: _Clock, tmp_path: Path) -> Iterator[StandIn]:
    """The stand-in."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # as the command line has it
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "no-tokens"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with standin() as served:
        yield served
        _http.close_session()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with several weight files whose sources name one licence."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYSAFE_CACHE", str(folder / "cache"))
        models = trio(folder, layers=2)
        for path in models.paths.values():
            (path / "README.md").write_text(CARD.format(licence="apache-2.0"))
        return run_recipe(recipe_for(models.paths, folder / "out", SOUP, shard_size=8000)).output


@pytest.fixture
def model(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it."""
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(made, tmp_path / "model"))
