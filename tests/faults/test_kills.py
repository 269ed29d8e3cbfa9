"""SIGKILL at random points: what is written is absent or whole, and the same command goes on to the same result.

`make soak` kills everything fifty times, as `POLYSAFE_KILLS=50` says; the suite does it as often as time allows.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.commands import run_function
from tests.faults import killed

WORKS = {"writing": 2, "evaluating": 2, "searching": 2, "building": 1}
ASKED = os.environ.get("POLYSAFE_KILLS")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    place = tmp_path_factory.mktemp("kills")
    works = {name: int(ASKED or kills) for name, kills in WORKS.items()}
    status, said = run_function(killed.kill, place, works, folder=place)
    assert status == 0, said
    return {name: dict(report) for name, report in json.loads(said.splitlines()[-1]).items()}


@pytest.mark.parametrize("work", [pytest.param(work, marks=pytest.mark.fault(10, work)) for work in WORKS])
def test_killed_at_random_points_it_goes_on_to_the_same_result(work: str, reports: dict[str, dict[str, int]]) -> None:
    report = reports[work]
    assert report["kills"] >= int(ASKED or WORKS[work])
    assert report["rounds"] >= 1
