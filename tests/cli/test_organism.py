from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from polysafe.errors import CheckpointError
from polysafe.organism.family import HARD, Recipe
from polysafe.organism.packaged import MEMBERS, NOTICE

Polysafe = Callable[..., Result]


class FakeFamily:
    """What the commands need of a family."""

    seed = 7

    def __init__(self, root: Path) -> None:
        self.members = {name: root / name for name in MEMBERS}

    def info(self) -> dict[str, Any]:
        members = {name: str(path) for name, path in self.members.items()}
        return {"notice": NOTICE, "members": members, "languages": {"en": "pivot"}, "bytes": 12_000_000}


def test_info_shows_members_and_says_what_they_are(
    polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polysafe.cli.commands.organism.packaged_family", lambda: FakeFamily(tmp_path))
    result = polysafe("organism", "info")
    assert result.exit_code == 0
    assert all(member in result.stdout for member in MEMBERS)
    assert "12.0 MB" in result.stdout
    assert NOTICE in result.stderr


def test_info_as_json_maps_members_to_folders(
    polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polysafe.cli.commands.organism.packaged_family", lambda: FakeFamily(tmp_path))
    result = polysafe("organism", "info", "--json")
    assert result.stderr == ""
    content = json.loads(result.stdout)
    assert content["members"] == {name: str(tmp_path / name) for name in MEMBERS}
    assert content["notice"] == NOTICE


def test_packaged_family_is_there(polysafe: Polysafe) -> None:
    result = polysafe("organism", "info", "--json")
    assert result.exit_code == 0
    members = json.loads(result.stdout)["members"]
    assert set(members) == set(MEMBERS)
    assert all((Path(folder) / "config.json").is_file() for folder in members.values())


def test_absent_family_is_an_error(polysafe: Polysafe, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise CheckpointError("no model family here", remedy="train one")

    monkeypatch.setattr("polysafe.cli.commands.organism.packaged_family", absent)
    result = polysafe("organism", "info")
    assert result.exit_code == 2
    assert result.stderr == "error: no model family here\n  train one\n"


@pytest.mark.parametrize(
    ("arguments", "seed", "folder", "recipe"),
    [
        ([], 0, "family-0", Recipe()),
        (["--seed", "3"], 3, "family-3", Recipe()),
        (["--seed", "3", "--output", "x"], 3, "x", Recipe()),
        (["hard", "--seed", "3"], 3, "hard-3", HARD),
    ],
)
def test_build_trains_the_seed_into_the_folder(
    polysafe: Polysafe, monkeypatch: pytest.MonkeyPatch, arguments: list[str], seed: int, folder: str, recipe: Recipe
) -> None:
    calls: list[tuple[int, Path, Recipe]] = []

    def build(seed: int, output: Path, *, recipe: Recipe) -> FakeFamily:
        calls.append((seed, output, recipe))
        return FakeFamily(output)

    monkeypatch.setattr("polysafe.organism.family.build_family", build)
    result = polysafe("organism", "build", *arguments, "--json")
    assert result.exit_code == 0
    assert calls == [(seed, Path(folder), recipe)]
    assert json.loads(result.stdout)["members"]["base"] == f"{folder}/base"
