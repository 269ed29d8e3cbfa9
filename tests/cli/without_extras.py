"""Runs every command in processes that lack the packages of an extra, and says how each ended.

    python -m tests.cli.without_extras FOLDER    (which holds commands.json: extra, or `every` -> commands)

Every module of the commands and of what they carry out is imported once, and needs no extra for it; for every extra a
fork of this process forbids its packages.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import requires
from pathlib import Path
from typing import Any, ClassVar

from packaging.requirements import Requirement

from tests.commands import command_modules

EXTRAS = ("annotate", "attacks", "data", "gguf", "inspect", "large", "lm-eval", "models", "ray", "search", "server")


class Without(PathFinder):
    """The finder of installed packages, which does not find some of them."""

    packages: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in cls.packages:
            return None
        return super().find_spec(fullname, path, target)


def packages_of(extra: str) -> list[str]:
    """The packages that an extra asks for itself."""
    lines = map(Requirement, requires("polysafe") or [])
    return [
        line.name.replace("-", "_")
        for line in lines
        if line.marker is not None and f'extra == "{extra}"' in str(line.marker) and line.name != "polysafe"
    ]


def carried_out(folder: Path, commands: Sequence[Sequence[str]], packages: Sequence[str]) -> list[dict[str, Any]]:
    """How every command ends where these packages are not installed."""
    Without.packages = frozenset(packages)
    from typer.testing import CliRunner

    from polysafe.cli.app import app

    os.chdir(folder)
    ended = []
    for command in commands:
        result = CliRunner().invoke(app, list(command))
        defect = result.exception is not None and not isinstance(result.exception, SystemExit)
        trace = "".join(traceback.format_exception(result.exception)) if defect else ""
        ended.append({"command": command, "code": result.exit_code, "said": result.stderr, "traceback": trace})
    return ended


def forked(folder: Path, commands: Sequence[Sequence[str]], packages: Sequence[str]) -> list[dict[str, Any]]:
    """`carried_out` in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with open(writing, "w", encoding="utf-8") as file:
            json.dump(carried_out(folder, commands, packages), file)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        found: list[dict[str, Any]] = json.loads(file.read())
    os.waitpid(child, 0)
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    commands = json.loads((folder / "commands.json").read_text())
    lacking = {extra: packages_of(extra) for extra in EXTRAS}
    lacking["every"] = sorted({package for packages in lacking.values() for package in packages})
    Without.packages = frozenset(lacking["every"])
    sys.meta_path[sys.meta_path.index(PathFinder)] = Without
    for name in command_modules():
        import_module(name)
    sys.stdout.write(json.dumps({extra: forked(folder, commands[extra], lacking[extra]) for extra in commands}))


if __name__ == "__main__":
    main()
