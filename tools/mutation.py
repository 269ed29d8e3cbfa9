"""How much of what could go wrong the tests notice: `python -m tools.mutation stats`, or another of `PARTS`.

Mutants are mutmut's, a sample of them with a fixed seed: whatever it changes within functions but the words of errors.
Tests and sources are imported once. For every mutant a fork puts the changed code into its function and runs the tests
that name its module and, where it survives these, the others of the part. The first failure kills it, and so does an
endless loop. What came of a mutant is kept by its change, so that a run goes on where it stopped; `--again` tries new
tests on the survivors. Slow tests are left out, and processes that tests start run what is unchanged.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import os
import random
import resource
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NoReturn

import libcst as cst
import pytest
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
_QUIET = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", "--no-header")
_LOG = Path(f"build/mutation-{os.getpid()}.txt")
SURVIVED = "survived"
_SECONDS = 100
"""Processor time of the tests of one mutant, after which it goes on for ever."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        part: What it belongs to.
        path: The file.
        line: Line of the change.
        diff: The lines that go and come.
        function: Names of the class, if any, and of the function that is changed.
        code: The function with the change.
    """

    part: str
    path: Path
    line: int
    diff: str
    function: tuple[str, ...]
    code: CodeType

    def put_in(self) -> None:
        """Changes the function of this process."""
        found: Any = importlib.import_module(module_of(self.path))
        for name in self.function:
            found = vars(found)[name]
        function = getattr(found, "__func__", found)  # of a class method or a static one
        assert isinstance(function, FunctionType)
        function.__code__ = self.code

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

    @cached_property
    def functions(self) -> dict[tuple[str, ...], CodeType]:
        """The code of its functions, by the names of class and function."""
        return dict(_functions(compile(self.module.code, str(self.path), "exec")))

    def mutant(self, part: str, mutation: Mutation) -> Mutant | None:
        """One of its changes; None where no code of a function is another: defaults of arguments are set beside it."""
        changed = self.module.deep_replace(mutation.original_node, mutation.mutated_node)
        assert isinstance(changed, cst.Module)
        before, after = self.module.code.splitlines(), changed.code.splitlines()
        place, *lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
        new = dict(_functions(compile(changed.code, str(self.path), "exec")))
        function = next((name for name, code in new.items() if code != self.functions[name]), None)
        if function is None:
            return None
        diff = "\n".join(line for line in lines if not line.startswith("@@"))
        line = int(place.split()[1].lstrip("-").partition(",")[0])
        return Mutant(part, self.path, line, diff, function, new[function])


def _functions(code: CodeType, *within: str) -> Iterator[tuple[tuple[str, ...], CodeType]]:
    """The code of every function of a module and of every method of its classes."""
    for each in (each for each in code.co_consts if isinstance(each, CodeType)):
        if each.co_flags & 2:  # CO_NEWLOCALS: a function
            yield (*within, each.co_name), each
        elif not within:
            yield from _functions(each, each.co_name)


def _nodes(root: cst.CSTNode, kind: type[cst.CSTNode]) -> Iterator[cst.CSTNode]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, kind):
            yield node
        waiting.extend(node.children)


def sample(part: str, count: int, seed: int) -> tuple[int, Iterator[Mutant]]:
    """How many mutants a part has, and some of them, all equally likely."""
    sources = [Source.read(file) for place in PARTS[part][0] for file in _files(Path(place))]
    every = [(source, mutation) for source in sources for mutation in source.mutations]
    chosen = random.Random(seed).sample(every, min(count, len(every)))
    made = (source.mutant(part, mutation) for source, mutation in chosen)
    return len(every), (each for each in made if each is not None)


def module_of(path: Path) -> str:
    """Dotted name of a file below `src`."""
    return ".".join(path.with_suffix("").parts[1:])


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.py")) if place.is_dir() else [place]


def all_tests(part: str) -> tuple[str, ...]:
    """The test files of a part."""
    return tuple(sorted(str(file) for place in PARTS[part][1] for file in Path(place).rglob("test_*.py")))


def tests_of(part: str, module: str) -> tuple[tuple[str, ...], ...]:
    """The test files of a part that name a module, and the others."""
    files = all_tests(part)
    named = tuple(file for file in files if module in Path(file).read_text(encoding="utf-8"))
    return tuple(each for each in (named, tuple(file for file in files if file not in named)) if each)


@cache
def imported(tests: tuple[str, ...]) -> tuple[str, ...]:
    """The tests, with their modules imported, so that no fork has to."""
    with open(_LOG, "w", encoding="utf-8") as file, redirect_stdout(file):
        pytest.main(["--collect-only", *_QUIET, *tests])
    return tests


def check(tests: tuple[str, ...]) -> None:
    """Ends the program where tests fail, or take nearly as long as a mutant may, without a change."""
    came, taken = run(tests)
    if came != SURVIVED or taken > _SECONDS / 2:
        raise SystemExit(f"without a change: {came}, {taken:.0f} s: {_LOG.read_text()[-3000:]}")


def tried_by(tests: Sequence[tuple[str, ...]], mutant: Mutant) -> tuple[str, float]:
    """The same as `run` of one set of tests after the other, until one notices."""
    came, taken = SURVIVED, 0.0
    for some in tests:
        came, more = run(imported(some), mutant)
        taken += more
        if came != SURVIVED:
            break
    return came, taken


def run(tests: Sequence[str], mutant: Mutant | None = None) -> tuple[str, float]:
    """What came of tests (`killed`, `too long`, `survived`), and the processor time that they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        _tested(tests, mutant)
    _, status = os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if os.WIFSIGNALED(status):
        return "too long", taken
    return (SURVIVED if os.WEXITSTATUS(status) == 0 else "killed"), taken


def _tested(tests: Sequence[str], mutant: Mutant | None) -> NoReturn:
    """Runs tests and ends the process with what pytest says of them."""
    code = 3
    try:
        with open(_LOG, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS + 5))
        if mutant is not None:
            mutant.put_in()
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
    _LOG.parent.mkdir(exist_ok=True)
    _try_all(options, options.results / f"{options.part}.json")


def _try_all(options: argparse.Namespace, results: Path) -> None:
    known: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {"tried": {}}
    tried = known["tried"]
    known["mutants"], chosen = sample(options.part, options.count, options.seed)
    for mutant in chosen:
        before = tried.get(mutant.name)
        if before is not None and not (options.again and before["came"] == SURVIVED):
            continue
        came, taken = tried_by(tests_of(mutant.part, module_of(mutant.path)), mutant)
        kept = before if before is not None and came == SURVIVED else {}
        tried[mutant.name] = {**kept, "came": came, "line": mutant.line}
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
        print(f"{came}, {taken:.1f} s: {mutant.path}:{mutant.line}\n{mutant.diff}", flush=True)
    check(imported(all_tests(options.part)))
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
