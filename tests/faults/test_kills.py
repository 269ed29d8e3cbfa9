"""SIGKILL at random points: what is written is absent or whole, and the same command goes on to the same result.

`make soak` kills everything fifty times, as `POLYSAFE_KILLS=50` says; the suite does it as often as time allows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.faults import killed

pytestmark = pytest.mark.slow
WORKS = {"writing": 2, "evaluating": 2, "searching": 2, "building": 1}
ASKED = os.environ.get("POLYSAFE_KILLS")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    place = tmp_path_factory.mktemp("kills")
    works = [f"{name}={ASKED or kills}" for name, kills in WORKS.items()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, killed.__file__, str(place), *works]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return {name: dict(report) for name, report in json.loads(done.stdout).items()}


@pytest.mark.parametrize("work", [pytest.param(work, marks=pytest.mark.fault(10, work)) for work in WORKS])
def test_killed_at_random_points_it_goes_on_to_the_same_result(work: str, reports: dict[str, dict[str, int]]) -> None:
    report = reports[work]
    assert report["kills"] >= int(ASKED or WORKS[work])
    assert report["rounds"] >= 1
