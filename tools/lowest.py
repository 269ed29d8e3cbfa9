"""The lowest versions that `pyproject.toml` declares, as a constraints file for pip.

    python -m tools.lowest > lowest.txt        of what polysafe needs and of its extras at run time
    pip install --constraint lowest.txt ".[models]"

Direct dependencies alone are pinned; what they need themselves is chosen by pip. torch is left out: it is installed
first and exactly, as everywhere (see the Makefile).
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tools.supply import NOT_AT_RUN_TIME, PROJECT

LEFT_OUT = frozenset({PROJECT, "torch"})


def lowest(project: Mapping[str, Any]) -> Iterator[str]:
    """A line for each package that `[project]` names, in the order of its name.

    Raises:
        ValueError: A dependency has no lowest version.
    """
    extras = project["optional-dependencies"]
    lines = [
        *project["dependencies"],
        *(line for name in extras if name not in NOT_AT_RUN_TIME for line in extras[name]),
    ]
    floors: dict[str, str] = {}
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT:
            continue
        stated = [each.version for each in requirement.specifier if each.operator in {">=", "=="}]
        if not stated:
            raise ValueError(f"{requirement} has no lowest version")
        floors[name] = max(stated[0], floors.get(name, "0"), key=Version)
    yield from (f"{name}=={version}" for name, version in sorted(floors.items()))


def main() -> None:
    """Prints the file."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    sys.stdout.write("".join(f"{line}\n" for line in lowest(tomllib.loads(text)["project"])))


if __name__ == "__main__":
    main()
