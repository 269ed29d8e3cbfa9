"""A recipe on disk, a way to run commands in this process, and one to run them as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from polysafe.cli.app import app
from tests.models import trio
from tests.processes import started

Polysafe = Callable[..., Result]


@pytest.fixture
def polysafe() -> Polysafe:
    """Runs a command in this process."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command in a process of its own, which ends with the test."""
    with ExitStack() as running:

        def start(*arguments: object, program: str = "", ignores_interrupts: bool = False) -> subprocess.Popen[str]:
            source = str(Path(__file__).parents[2] / "src")
            environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
            line = [sys.executable, *(["-c", program] if program else ["-m", "polysafe"]), *map(str, arguments)]
            return running.enter_context(started(line, env=environment, ignores_interrupts=ignores_interrupts))

        yield start


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of a layer swap on tiny models, whose output is `out` beside it."""
    trio(tmp_path, layers=8)
    file = tmp_path / "recipe.yaml"
    file.write_text(
        """\
polysafe: 1
sources:
  base:   {path: ./base}
  safety: {path: ./safety}
  sw:     {path: ./sw}
edits:
  - method: layer_swap
    base: base
    safety: safety
    language: sw
output: {path: ./out}
"""
    )
    return file
