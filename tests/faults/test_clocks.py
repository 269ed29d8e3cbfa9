"""Clocks that jump, and files from the future or from before 1980: no result depends on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from polysafe.checkpoint.verify import verify_output
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import recipe_for
from tests.faults.killed import build, evaluate, family, files, points, search
from tests.models import Trio, trio


def backwards() -> Callable[[], float]:
    """A clock that is an hour earlier whenever it is asked, and soon before 1970."""
    hours = count()
    return lambda: 36_000.0 - 3600 * next(hours)


def leaping() -> Callable[[], float]:
    """A clock that leaps forwards by a year and back again."""
    turns = count()
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    return lambda: now + (next(turns) % 2) * 365 * 86_400


CLOCKS = {"backwards": backwards, "leaping": leaping}


@pytest.fixture
def models(tmp_path: Path) -> Trio:
    return trio(tmp_path / "models", layers=2)


@pytest.mark.fault(15, "clocks that are set")
@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_is_set_changes_no_byte(
    clock: str, models: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = tmp_path / "sound", tmp_path / "set"
    for place in places:
        place.mkdir()
        run_recipe(recipe_for(models.paths, place / "model"))
        evaluate(place, lambda: None)
        monkeypatch.setattr(time, "time", CLOCKS[clock]())
    sound, other = map(snapshot, places)
    assert sound == other


@pytest.mark.fault(15, "clocks that are set")
def test_a_clock_that_is_set_changes_no_search_and_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("sound", "set"):
        place = tmp_path / name
        place.mkdir()
        search(place, lambda: None)
        found.append(points(place))
        monkeypatch.setattr(time, "time", backwards())
    assert found[0] is not None
    assert found[0] == found[1]


TIMES = {"in the future": datetime(2107, 1, 1, tzinfo=UTC), "before 1980": datetime(1975, 1, 1, tzinfo=UTC)}


@pytest.fixture
def dated(request: pytest.FixtureRequest, models: Trio) -> Iterator[Trio]:
    """The models with times of change that no program wrote."""
    seconds = TIMES[request.param].timestamp() if request.param in TIMES else -86_400.0
    for path in [*models.base.parent.rglob("*")]:
        os.utime(path, (seconds, seconds))
    yield models
    assert {path.stat().st_mtime for path in models.base.rglob("*")} == {seconds}


@pytest.mark.fault(15, "files of other times")
@pytest.mark.parametrize("dated", [*TIMES, "before 1970"], indirect=True)
def test_files_of_another_time_are_read_as_others(dated: Trio, tmp_path: Path) -> None:
    recipe = recipe_for(dated.paths, tmp_path / "out")
    run_recipe(recipe)
    assert verify_output(tmp_path / "out").ok
    assert run_recipe(recipe).complete_before
    os.utime(tmp_path / "out" / "model.safetensors", (0, 0))
    assert verify_output(tmp_path / "out").ok


@pytest.mark.fault(15, "files of other times")
def test_a_finished_family_of_another_time_is_not_built_again(tmp_path: Path) -> None:
    build(tmp_path, lambda: None)
    whole = family(tmp_path)
    assert whole is not None
    for path in tmp_path.rglob("*"):
        os.utime(path, (0, 0))
    told: list[int] = []
    build(tmp_path, lambda: told.append(1))
    assert told == []
    assert family(tmp_path) == whole
    assert files(tmp_path)
