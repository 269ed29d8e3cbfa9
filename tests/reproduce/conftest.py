"""A small evaluation of a swap in the toy family, whose models lie in a folder of the user's."""

from __future__ import annotations

import getpass
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from polysafe.cli.app import app
from polysafe.organism.packaged import packaged_family
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.reproduce.record import ReproduceFolder
from polysafe.workflows.evaluate import evaluate_recipe

SOURCES = ("base", "safety", "qac")
SWAP = {"method": "layer_swap", "base": "base", "safety": "safety", "language": "qac"}
LIMIT = 6


@dataclass(frozen=True)
class Done:
    """An evaluation.

    Attributes:
        folder: Its results.
        models: Where its models lie.
    """

    folder: Path
    models: Path

    @property
    def options(self) -> list[str]:
        return [text for name in SOURCES for text in ("--source", f"{name}={self.models / name}")]

    @property
    def sources(self) -> dict[str, Path]:
        return {name: self.models / name for name in SOURCES}


def secrets_of_this_machine() -> list[str]:
    """What must not be in a file that is given away; names of a few letters could stand in any hash."""
    names = [getpass.getuser(), socket.gethostname()]
    return [str(Path.home()), "file:///", *(name for name in names if len(name) > 4)]


def family_copy(folder: Path) -> Path:
    """Members of the packaged family as models of the user's."""
    packaged = packaged_family().root
    folder.mkdir(parents=True)
    shutil.copy(packaged / "family.json", folder)
    for name in SOURCES:
        shutil.copytree(packaged / name, folder / name)
    return folder


def swap_recipe(models: Path, output: Path, **entry: Any) -> Recipe:
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(models / name)} for name in SOURCES},
            "edits": [{**SWAP, **entry}],
            "output": {"path": str(output)},
            "evaluate": {"languages": ["en", "qac"], "safety": ["organism"], "over_refusal": ["organism"]},
        }
    )


def evaluate(recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    evaluate_recipe(recipe, folder, judge="organism", limit=LIMIT, cache=folder.parent / "cache.sqlite")


@pytest.fixture(scope="package")
def once(tmp_path_factory: pytest.TempPathFactory) -> Done:
    root = tmp_path_factory.mktemp("secret-user")
    models = family_copy(root / "models")
    evaluate(swap_recipe(models, root / "out"), root / "results")
    return Done(root / "results", models)


@pytest.fixture
def done(once: Done, tmp_path: Path) -> Done:
    """The evaluation, to be tampered with."""
    shutil.copytree(once.folder, tmp_path / "results")
    models = tmp_path / "models"
    shutil.copytree(once.models, models)
    return Done(tmp_path / "results", models)


@pytest.fixture
def recorded(done: Done) -> ReproduceFolder:
    return ReproduceFolder.load(done.folder)


@pytest.fixture
def polysafe() -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call
