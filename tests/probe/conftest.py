"""Fixtures of the tests of probes: opened sources and loaded models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.opened import open_source
from polysafe.probe.model import LoadedModel, load_model
from tests.models import tiny_model

Loader = Callable[[str], LoadedModel]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYSAFE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    """The tiny model of a family, loaded once for all tests, none of which changes it."""
    models: dict[str, LoadedModel] = {}
    with ExitStack() as stack:

        def load(family: str) -> LoadedModel:
            if family not in models:
                folder = tiny_model(family).save(tmp_path_factory.mktemp(family))
                models[family] = load_model(stack.enter_context(open_source(folder)))
            return models[family]

        yield load


@pytest.fixture
def llama(loaded: Loader) -> LoadedModel:
    return loaded("llama")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny Llama checkpoint of its own."""
    return tiny_model("llama", layers=2).save(tmp_path / "llama")
