"""A tiny model with anchors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.opened import Sources
from tests.methods.anchors import write_anchors
from tests.methods.conftest import Opener
from tests.methods.sparse_edit.tiny import LAYERS
from tests.models import tiny_model


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYSAFE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", layers=LAYERS).to(torch.float32).save(tmp_path_factory.mktemp("sparse") / "model")


@pytest.fixture
def sources(opened: Opener, folder: Path) -> Sources:
    return opened({"model": folder})


@pytest.fixture(scope="session")
def anchors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_anchors(tmp_path_factory.mktemp("anchors"))
