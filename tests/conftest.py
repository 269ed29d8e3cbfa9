"""Settings and fixtures for all tests."""

from __future__ import annotations

import gc
import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from typer.main import get_command

from tests.browser import chromium, open_browser
from tests.real_models import common
from tests.supply.network import asks_nobody, guarded
from tools.slow_tests import listed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Tests check results, not timings: a busy machine must not fail a property. `make soak` tries more examples of each.
settings.register_profile("polysafe", deadline=None, max_examples=int(os.environ.get("POLYSAFE_EXAMPLES", "40")))
settings.load_profile("polysafe")

TOGETHER = ("tests/cluster/",)
"""Folders whose modules share what takes long to start: a cluster of Ray."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests and imported modules live as long as the run: looking for garbage among them finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Modules that take long come first, so that no process idles while another has a long one left.

    What is slow was measured (`make slow`). Of tests with many cases, `POLYSAFE_CASES` says how many are run
    (`make test-fast`): the same ones every time, from the first to the last.
    """
    slow = listed()
    modules: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        if seconds := slow.get(item.nodeid.partition("[")[0]):
            item.add_marker(pytest.mark.slow)
            modules[item.path] += seconds
    items.sort(key=lambda item: -modules[item.path])
    if most := int(os.environ.get("POLYSAFE_CASES", "0")):
        left = _left_out(items, most)
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=list(left))


def _left_out(items: list[pytest.Item], most: int) -> set[pytest.Item]:
    cases: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    kept = {each[len(each) * at // most] for each in cases.values() if len(each) > most for at in range(most)}
    return {item for each in cases.values() if len(each) > most for item in each} - kept


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Every module is given to one process; all modules of a folder of `TOGETHER` to the same."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No result of an earlier run is read: the processes of one run share a new cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYSAFE_CACHE", str(common(tmp_path_factory) / "polysafe-cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _quick_disk() -> Iterator[None]:
    """No power is cut during a test, so nobody waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_command_line() -> Iterator[None]:
    """Forty commands are made of their functions once, and not for every call of one of them in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _this_machine_alone() -> Iterator[None]:
    """Nothing that a test does leaves this machine."""
    with guarded():
        yield


@pytest.fixture(autouse=True)
def _asks_nobody() -> Iterator[None]:
    """Whoever asks for another host fails the test, even where the refusal was taken for a lost connection."""
    with asks_nobody():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium for the tests of one module."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = chromium()
    if program is None:
        pytest.skip("this machine has no Chromium")
    with open_browser(program) as running:
        yield running
