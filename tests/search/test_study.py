"""A study keeps its points, goes on as it would have gone on, and tries a small space whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from polysafe.errors import DataError, EditError, OutputError, VerificationError
from polysafe.search.choice import recommend
from polysafe.search.points import Outcome
from polysafe.search.space import Space
from polysafe.search.study import JOURNAL, Study
from tests.search.made import outcome, steering

FIELDS = {"strength": {"low": 0.0, "high": 2.0}, "fraction": {"low": 0.1, "high": 0.9}}


def made(setting: Mapping[str, Any]) -> Outcome:
    """Gains with strength, costs with its square."""
    return outcome(10 + int(10 * setting["strength"]), setting["strength"] ** 2, over=0.01 * setting["fraction"])


def settings(folder: Path, space: Space) -> list[Mapping[str, Any]]:
    return [point.setting for point in Study(folder, space, "a").points()]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_an_interrupted_study_has_the_points_of_one_that_was_not(tmp_path: Path, sampler: str) -> None:
    space = steering(FIELDS, {"trials": 25, "sampler": sampler})
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    study = Study(whole, space, "a")
    study.begin()
    study.run(made, 25)

    calls = 0

    def stopping(setting: Mapping[str, Any]) -> Outcome:
        nonlocal calls
        calls += 1
        if calls in (1, 5, 14, 15):
            raise KeyboardInterrupt
        return made(setting)

    for _ in range(5):
        again = Study(parts, space, "a")
        again.begin()
        try:
            again.run(stopping, 25)
        except KeyboardInterrupt:
            continue
    assert settings(parts, space) == settings(whole, space)
    assert len(settings(whole, space)) == 25


def test_the_published_point_comes_first(tmp_path: Path) -> None:
    space = steering(FIELDS)
    study = Study(tmp_path, space, "a")
    study.begin()
    study.run(made, 1)
    assert settings(tmp_path, space) == [{"strength": 1.0, "fraction": 0.5}]


def test_a_small_space_is_tried_whole_and_once(tmp_path: Path) -> None:
    space = steering({"strength": {"choices": [0.5, 1.0, 2.0]}, "fraction": {"choices": [0.25, 0.5]}})
    study = Study(tmp_path, space, "a")
    study.begin()
    study.run(made, space.size or 0)
    found = {(point.setting["strength"], point.setting["fraction"]) for point in study.points()}
    assert len(study.points()) == len(found) == 6


def test_a_search_finds_more_than_chance_does(tmp_path: Path) -> None:
    def narrow(setting: Mapping[str, Any]) -> Outcome:
        distance = abs(setting["strength"] - 1.7) + abs(setting["fraction"] - 0.8)
        return outcome(10 + max(0, int(30 - 40 * distance)), distance)

    best = {}
    for sampler in ("tpe", "random"):
        folder = tmp_path / sampler
        folder.mkdir()
        scores = []
        for seed in range(3):
            space = steering(FIELDS, {"sampler": sampler, "seed": seed, "objectives": ["refused"]})
            place = folder / str(seed)
            place.mkdir()
            study = Study(place, space, "a")
            study.begin()
            study.run(narrow, 40)
            scores.append(max(point.outcome.score for point in study.points() if point.outcome))
        best[sampler] = sum(scores)
    assert best["tpe"] > best["random"]


def test_a_point_that_cannot_be_made_is_kept_with_its_reason(tmp_path: Path) -> None:
    def odd(setting: Mapping[str, Any]) -> Outcome:
        if setting["strength"] > 1:
            raise EditError("too strong")
        return made(setting)

    space = steering(FIELDS)
    study = Study(tmp_path, space, "a")
    study.begin()
    study.run(odd, 20)
    points = study.points()
    failed = [point for point in points if point.outcome is None]
    assert len(points) == 20
    assert {point.problem for point in failed} == {"too strong"}
    assert all(point.setting["strength"] > 1 for point in failed)


def test_a_judge_that_fails_half_of_the_time_loses_half_of_the_points_and_nothing_else(tmp_path: Path) -> None:
    calls = 0

    def failing(setting: Mapping[str, Any]) -> Outcome:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise DataError("60 of 96 verdicts of the judge cannot be read")
        return made(setting)

    study = Study(tmp_path, steering(FIELDS), "a")
    study.begin()
    study.run(failing, 20)
    points = study.points()
    assert sum(point.outcome is None for point in points) == 10
    choice = recommend(points, ("refused", "kl"), len(points))
    assert choice.point is not None
    assert choice.point.outcome is not None


def test_a_search_of_which_nothing_can_be_made_ends_early(tmp_path: Path) -> None:
    calls = []

    def broken(setting: Mapping[str, Any]) -> Outcome:
        calls.append(setting)
        raise EditError("the judge cannot be read")

    study = Study(tmp_path, steering(FIELDS), "a")
    study.begin()
    with pytest.raises(VerificationError, match="none of the first 5 points can be made: the judge cannot be read"):
        study.run(broken, 100)
    assert len(calls) == 5


def test_another_search_in_the_folder_is_refused(tmp_path: Path) -> None:
    Study(tmp_path, steering(FIELDS), "a")
    with pytest.raises(OutputError, match="another search"):
        Study(tmp_path, steering(FIELDS), "b")


@pytest.mark.hostile("record")
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text("what is this\n")
    with pytest.raises(OutputError, match="no journal of a search"):
        Study(tmp_path, steering(FIELDS), "a")


@pytest.mark.fault(19, "half-written lines")
def test_a_half_written_line_is_cut_off(tmp_path: Path) -> None:
    space = steering(FIELDS)
    study = Study(tmp_path, space, "a")
    study.begin()
    study.run(made, 5)
    before = settings(tmp_path, space)
    with (tmp_path / JOURNAL).open("ab") as stream:
        stream.write(b'{"op_code": 6, "trial_id"')
    assert settings(tmp_path, space) == before


KILLED = """
    import sys
    from pathlib import Path
    from tests.search.test_study import FIELDS, made
    from tests.search.made import steering
    from polysafe.search.study import Study

    study = Study(Path(sys.argv[1]), steering(FIELDS), "a")
    study.begin()

    def attempt(setting):
        print("point", flush=True)
        return made(setting)

    study.run(attempt, 10_000)
"""


@pytest.mark.fault(10, "searching")
def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    space = steering(FIELDS)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    for _ in range(8):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    count = len(settings(tmp_path, space))
    assert count >= 7
    again = Study(tmp_path, space, "a")
    again.begin()
    again.run(made, count + 3)
    other = tmp_path / "other"
    other.mkdir()
    whole = Study(other, space, "a")
    whole.begin()
    whole.run(made, count + 3)
    assert settings(tmp_path, space) == settings(other, space)
