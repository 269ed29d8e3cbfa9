"""What is declared of versions is what is made of it: constraints, workflow, container."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tools.lowest import LEFT_OUT, lowest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_every_direct_dependency_is_pinned_to_what_it_allows() -> None:
    pinned = dict(line.split("==") for line in lowest(PROJECT))
    for requirement in map(Requirement, PROJECT["dependencies"]):
        if requirement.name not in LEFT_OUT:
            assert requirement.specifier.contains(pinned[requirement.name]), requirement
    assert {"transformers", "py3langid", "httpx", "optuna"} <= pinned.keys()
    assert not LEFT_OUT & pinned.keys()


def test_the_highest_of_two_lower_bounds_is_taken() -> None:
    extras = {"one": ["a>=2"], "two": ["a>=10", "torch"], "dev": ["b"]}
    assert list(lowest({"dependencies": ["a>=1.5"], "optional-dependencies": extras})) == ["a==10"]


def test_a_dependency_without_a_lowest_version_is_refused() -> None:
    with pytest.raises(ValueError, match="b has no lowest version"):
        list(lowest({"dependencies": ["b"], "optional-dependencies": {}}))


def test_the_workflow_runs_targets_that_are_there_on_every_python_that_is_supported() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    assert {command.removeprefix("make ") for command in commands} <= targets
    assert {"make setup", "make lint", "make test", "make lowest", "make release", "make installed"} <= set(commands)
    named = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == named


def test_everybody_names_the_same_torch() -> None:
    (made,) = re.findall(r"^TORCH \?= (\S+)$", MAKEFILE, re.MULTILINE)
    for file in (".github/workflows/ci.yml", "Containerfile", "README.md"):
        assert made in (ROOT / file).read_text(encoding="utf-8")


def test_the_tests_for_the_lowest_versions_are_there() -> None:
    (listed,) = re.findall(r"^LOWEST_TESTS \?= ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    places = listed.replace("\\\n", " ").split()
    assert len(places) > 5
    assert [place for place in places if not (ROOT / place).exists()] == []
