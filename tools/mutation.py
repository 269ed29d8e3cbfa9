"""How much of what could go wrong the tests notice: `python -m tools.mutation stats`, or another of `PARTS`.

Mutants are mutmut's, a sample of them with a fixed seed. Each is written into a copy of the sources, and the tests of
its part run in a fork of a process that has the heavy libraries already. The first failure kills it; so does several
times the processor time of the tests without a change. What came of a mutant is kept by its change, so that a run goes
on where it stopped; `--again` tries new tests on the survivors.
"""

from __future__ import annotations

import argparse
import compileall
import difflib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import libcst as cst
from mutmut.mutation.file_mutation import Mutation, create_mutations

PARTS = {
    "edits": (("src/polysafe/edits",), ("tests/edits",)),
    "stats": (("src/polysafe/stats",), ("tests/stats",)),
    "judge": (
        (
            "src/polysafe/judge/verdict.py",
            "src/polysafe/judge/guards",
            "src/polysafe/judge/kinds",
            "src/polysafe/judge/text",
            "src/polysafe/judge/phrases.py",
        ),
        ("tests/judge",),
    ),
}
"""What is mutated -> its sources, and the folder of its tests."""
BUILD = Path("build/mutation")
_QUIET = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--no-header", "-W", "ignore")
SURVIVED = "survived"
_SPARE = 4
"""A mutant may take so many times the processor time that the tests take, which is what endless loops are told by."""
_HEAVY = ("torch", "numpy", "scipy.stats", "pydantic", "safetensors.torch", "pytest", "hypothesis", "py3langid")


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        part: What it belongs to.
        path: The file.
        line: Line of the change.
        diff: The lines that go and come.
        code: The file with the change.
    """

    part: str
    path: Path
    line: int
    diff: str
    code: str

    @property
    def name(self) -> str:
        """What it is known by, wherever the lines are by now."""
        return f"{self.path.as_posix()}\n{self.diff}"


@dataclass(frozen=True)
class Source:
    """A file with what can be changed in it: whatever stands in a function, but the words of errors."""

    path: Path
    module: cst.Module
    mutations: tuple[Mutation, ...]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Reads a file."""
        module, mutations, _, _ = create_mutations(str(path), path.read_text(encoding="utf-8"))
        words = {id(text) for raised in _nodes(module, cst.Raise) for text in _nodes(raised, cst.SimpleString)}
        kept = [each for each in mutations if each.contained_by_top_level_function is not None]
        return cls(path, module, tuple(each for each in kept if id(each.original_node) not in words))

    def mutant(self, part: str, mutation: Mutation) -> Mutant:
        """The file with one of its changes."""
        changed = self.module.deep_replace(mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, cst.Module)
        before, after = self.module.code.splitlines(), changed.code.splitlines()
        place, *lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
        diff = "\n".join(line for line in lines if not line.startswith("@@"))
        return Mutant(part, self.path, int(place.split()[1].lstrip("-").partition(",")[0]), diff, changed.code)


def _nodes(root: cst.CSTNode, kind: type[cst.CSTNode]) -> Iterator[cst.CSTNode]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, kind):
            yield node
        waiting.extend(node.children)


def sample(part: str, count: int, seed: int) -> tuple[int, list[Mutant]]:
    """How many mutants a part has, and some of them, all equally likely."""
    sources = [Source.read(file) for place in PARTS[part][0] for file in _files(Path(place))]
    every = [(source, mutation) for source in sources for mutation in source.mutations]
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    return len(every), [source.mutant(part, mutation) for source, mutation in chosen]


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def tests_of(mutant: Mutant) -> tuple[tuple[str, ...], ...]:
    """The tests of its part: first those that name its module, as they are the likeliest to fail, then the others."""
    dotted = ".".join(mutant.path.with_suffix("").parts[1:])
    files = sorted(file for place in PARTS[mutant.part][1] for file in Path(place).rglob("test_*.py"))
    named = tuple(str(file) for file in files if dotted in file.read_text(encoding="utf-8"))
    return tuple(filter(None, (named, tuple(str(file) for file in files if str(file) not in named))))


class Runner:
    """Runs tests on a copy of the sources.

    Args:
        build: Folder of the copy.
    """

    def __init__(self, build: Path) -> None:
        self._build = build
        self._limits: dict[tuple[str, ...], int] = {}

    def tried(self, mutant: Mutant) -> tuple[str, float]:
        """What came of a mutant (`killed`, `too long` or `survived`), and the processor time that it took."""
        came, total = SURVIVED, 0.0
        for tests in tests_of(mutant):
            limit = self._limit(tests)
            with self._changed(mutant):
                came, taken = self._run(tests, limit)
            total += taken
            if came != SURVIVED:
                break
        return came, total

    def _limit(self, tests: tuple[str, ...]) -> int:
        """Seconds that tests may take: several times what they take without a change, which has to pass."""
        if tests not in self._limits:
            came, taken = self._run(tests, 3600)
            if came != SURVIVED:
                raise SystemExit(f"tests fail without a change: {(self._build / 'log.txt').read_text()[-3000:]}")
            print(f"without a change: {taken:.1f} s for {len(tests)} files", flush=True)
            self._limits[tests] = int(_SPARE * taken) + 10
        return self._limits[tests]

    @contextmanager
    def _changed(self, mutant: Mutant) -> Iterator[None]:
        """Within it, the copy is that of a mutant."""
        file = self._build / mutant.path
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
            compiled.unlink()
        file.write_text(mutant.code, encoding="utf-8")
        try:
            yield
        finally:
            shutil.copyfile(mutant.path, file)

    def _run(self, tests: Sequence[str], seconds: int) -> tuple[str, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        child = os.fork()
        if child == 0:
            _tested(tests, seconds, self._build / "log.txt")
        _, status = os.waitpid(child, 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if os.WIFSIGNALED(status):
            return "too long", taken
        return (SURVIVED if os.WEXITSTATUS(status) == 0 else "killed"), taken


def _tested(tests: Sequence[str], seconds: int, log: Path) -> NoReturn:
    """Runs tests and ends the process with what pytest says of them."""
    import pytest

    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    sys.dont_write_bytecode = True
    code = 3
    try:
        code = int(pytest.main([*_QUIET, *tests]))
    finally:
        os._exit(code)


def main() -> None:
    """Tries a sample of mutants of a part, and says what share of them is killed."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, default=60, help="mutants")
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path("tests/trust/mutants"), help="folder of the results")
    parser.add_argument("--again", action="store_true", help="try those again that survived")
    options = parser.parse_args()
    build = BUILD / options.part
    path = os.pathsep.join((str(build.resolve() / "src"), str(Path.cwd())))
    if os.environ.get("PYTHONPATH") != path:
        # Processes that tests start have to import the copy as well.
        raise SystemExit(subprocess.call([sys.executable, *sys.orig_argv[1:]], env={**os.environ, "PYTHONPATH": path}))
    shutil.rmtree(build, ignore_errors=True)
    shutil.copytree("src", build / "src", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(build / "src", quiet=1)
    for name in _HEAVY:
        __import__(name)
    _try_all(options, Runner(build), options.results / f"{options.part}.json")


def _try_all(options: argparse.Namespace, runner: Runner, results: Path) -> None:
    known: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"tried": {}}
    tried = known["tried"]
    known["mutants"], chosen = sample(options.part, options.count, options.seed)
    for mutant in chosen:
        before = tried.get(mutant.name)
        if before is not None and not (options.again and before["came"] == SURVIVED):
            continue
        came, taken = runner.tried(mutant)
        kept = before if before is not None and came == SURVIVED else {}
        tried[mutant.name] = {**kept, "came": came, "line": mutant.line}
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        print(f"{came}, {taken:.1f} s: {mutant.path}:{mutant.line}\n{mutant.diff}", flush=True)
    print(told(known))


def told(known: dict[str, Any]) -> str:
    """What share of a sample was killed, with Wilson's interval for all mutants of the part."""
    from polysafe.stats.intervals import wilson

    came = [each["came"] != SURVIVED for each in known["tried"].values()]
    interval = wilson(sum(came), len(came))
    assert interval is not None
    return f"{sum(came)} of {len(came)} killed ({interval.low:.1%} to {interval.high:.1%} of {known['mutants']})"


if __name__ == "__main__":
    main()
