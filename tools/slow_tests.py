"""Measures what every test costs, and writes which of them `make test-fast` leaves out: `make slow`.

A plugin of pytest, for an idle machine and a process of tests for each of its cores. A test costs the seconds that it
takes, since what waits for a program or a browser holds up its process too, and its share of the fixtures that it uses
with others. `tests/slow.txt` has a line for every function whose cases take longer than `SECONDS`
on average, the longest first: `tests/conftest.py` marks them, and begins with the modules that have most of them.
Functions that are not run keep their lines.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

SECONDS = 0.2
"""Time up to which a test is quick."""
CASES = 4
"""Cases of a function that `make test-fast` runs at most (Makefile): so many share a fixture then."""
SLOW = Path(__file__).parents[1] / "tests" / "slow.txt"
_FOLDER = "POLYSAFE_COSTS"
_set_up: list[float] = []
"""Seconds of the shared fixtures that are being set up, or were for the test that runs now; each without the others."""


def listed() -> dict[str, float]:
    """The functions that are slow, and the seconds of each."""
    lines = (line.partition(" ") for line in SLOW.read_text(encoding="utf-8").splitlines())
    return {name: float(seconds) for seconds, _, name in lines}


def pytest_configure(config: pytest.Config) -> None:
    """The first process makes a folder for all of them."""
    if not hasattr(config, "workerinput"):
        os.environ[_FOLDER] = tempfile.mkdtemp()


def _write(line: Mapping[str, object]) -> None:
    with (Path(os.environ[_FOLDER]) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: Any) -> Generator[None, object, object]:
    """Notes what a fixture costs that several tests use."""
    if fixturedef.scope == "function":
        return (yield)
    began, others = time.perf_counter(), len(_set_up)
    try:
        return (yield)
    finally:
        cost = time.perf_counter() - began - sum(_set_up[others:])
        _set_up.append(cost)
        _write({"fixture": f"{request.node.nodeid}::{fixturedef.argname}", "cost": cost})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Notes what a test costs without the fixtures that it shares."""
    _set_up.clear()
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        used = [f"{part}::{name}" for name in getattr(item, "fixturenames", ()) for part in _parts(item)]
        _write({"test": item.nodeid, "cost": time.perf_counter() - began - sum(_set_up), "used": used})


def _parts(item: pytest.Item) -> list[str]:
    return [node.nodeid for node in item.listchain()[:-1]]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the list, once all processes are done."""
    if hasattr(session.config, "workerinput"):
        return
    folder = Path(os.environ.pop(_FOLDER))
    noted = [line for file in sorted(folder.iterdir()) for line in file.read_text(encoding="utf-8").splitlines()]
    shutil.rmtree(folder)
    costs = listed() | costs_of(map(json.loads, noted))
    slow = sorted(((round(cost, 2), name) for name, cost in costs.items()), reverse=True)
    SLOW.write_text("".join(f"{cost} {name}\n" for cost, name in slow if cost > SECONDS), encoding="utf-8")


def costs_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of every function: the mean of its cases, each with its shares of fixtures.

    Args:
        lines: What processes noted of `fixture` and `test`.
    """
    fixtures: defaultdict[str, float] = defaultdict(float)
    used: defaultdict[str, set[str]] = defaultdict(set)
    cases: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        if "fixture" in line:
            fixtures[line["fixture"]] += line["cost"]
        else:
            name = line["test"].partition("[")[0]
            cases[name].append(line["cost"])
            used[name].update(line["used"])
    users: Counter[str] = Counter()
    for name, costs in cases.items():
        users.update(dict.fromkeys(used[name], min(len(costs), CASES)))
    return {
        name: mean(costs) + sum(fixtures[each] / users[each] for each in used[name] & fixtures.keys())
        for name, costs in cases.items()
    }
