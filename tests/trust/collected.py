"""What tests say of themselves: which parts of a fault they prove, and which hostile inputs they are given.

`python -m tests.trust.collected` prints it as JSON. Tests are collected and not run, and only the files that have such
marks. A hostile input is a case of a test with the mark `hostile`; tests that are given the same cases say so by
`cases`, and count once. `by` names the parameters that make the input, where others say what is done with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Marks:
    """What was found.

    Attributes:
        faults: Number of a fault -> part -> tests that prove it.
        hostile: Kind -> set of cases -> names of its inputs.
        tests: Kind -> tests that are given its inputs.
    """

    faults: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    hostile: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    tests: dict[str, list[str]] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Called by pytest when it has collected."""
        # In one order, whatever runs first, or in what order the tests of a module do.
        for item in sorted(session.items, key=lambda item: (item.path, item.location[1] or 0, item.nodeid)):
            test = item.nodeid.split("[", maxsplit=1)[0]
            for mark in item.iter_markers("fault"):
                number, *parts = mark.args
                for part in parts:
                    _add(self.faults.setdefault(str(number), {}).setdefault(part, []), test)
            for mark in item.iter_markers("hostile"):
                (kind,) = mark.args
                cases = mark.kwargs.get("cases", test.rpartition("::")[2].removeprefix("test_"))
                _add(self.hostile.setdefault(kind, {}).setdefault(cases, []), _name(item, mark.kwargs.get("by")))
                _add(self.tests.setdefault(kind, []), test)


def _add(names: list[str], name: str) -> None:
    if name not in names:
        names.append(name)


def _name(item: pytest.Item, by: str | None) -> str:
    call = getattr(item, "callspec", None)
    if call is None:
        return "the only one"
    return str(call.params[by])[:60] if by else str(call.id)


def marks_of(session: pytest.Session) -> Marks:
    """The marks of all tests: of those that a session has collected, if it has them all."""
    files = {str(item.path) for item in session.items}
    some = "POLYSAFE_CASES" in os.environ
    if some or session.config.option.markexpr or session.config.option.keyword or not files.issuperset(marked_files()):
        return collected()
    found = Marks()
    found.pytest_collection_finish(session)
    return found


@cache
def collected() -> Marks:
    """The marks of all tests, read in another process."""
    command = [sys.executable, "-m", "tests.trust.collected"]
    every = {name: value for name, value in os.environ.items() if name != "POLYSAFE_CASES"}
    done = subprocess.run(command, env=every, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return Marks(**json.loads(done.stdout.splitlines()[-1]))


def marked_files() -> list[str]:
    """Test files in which such marks stand."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marks = "mark.fault(", "mark.hostile("
    return [str(file) for file in files if any(mark in file.read_text(encoding="utf-8") for mark in marks)]


if __name__ == "__main__":
    found = Marks()
    code = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "--no-header", *marked_files()], [found])
    sys.stdout.write(f"\n{json.dumps(asdict(found), sort_keys=True)}\n")
    sys.exit(code)
