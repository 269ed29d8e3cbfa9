"""Runs `polysafe` commands, and other functions, in processes of their own that have imported what takes long.

Python keeps one process that waits with everything imported; every process is a fork of it, with one thread: what was
imported cannot be told another number later.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from string import Template

import pytest

_HEAVY = (
    "torch",
    "numpy",
    "safetensors.torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gemma3.modeling_gemma3",
    "transformers.generation.utils",
)


def run_command(line: str, folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Exit status and output of a line `polysafe …` or `python FILE …`, in which variables may stand but no pipes."""
    words = shlex.split(Template(line).substitute(environment))
    return run_function(_command, words, folder, environment=environment, folder=folder)


def run_function(
    function: Callable[..., object], *arguments: object, folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Exit status and output of a function, which is found by its name; below 0 is the signal that ended it.

    Args:
        function: The function.
        arguments: What it is given.
        folder: Where its output is kept meanwhile.
        environment: That of the process; this one's by default.
    """
    said = folder / ".said"
    with begun(function, *arguments, said=said, environment=environment) as process:
        process.join()
    text = said.read_text(encoding="utf-8")
    said.unlink()
    assert process.exitcode is not None
    return process.exitcode, text


@contextmanager
def begun(
    function: Callable[..., object], *arguments: object, said: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ForkServerProcess]:
    """A process with a function and its output, at the end of a file; SIGKILL ends it with the block at the latest."""
    given = dict(os.environ if environment is None else environment)
    process = warm().Process(target=_carry_out, args=(function, arguments, given, said))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def polysafe(*arguments: str) -> None:
    """The program, for `begun`."""
    _command(["polysafe", *arguments], Path.cwd())


@contextmanager
def warm_workers() -> Iterator[None]:
    """Within it, `polysafe.processes.Workers` are such forks too: what is shared is tested, and not how they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr("polysafe.processes.multiprocessing.get_context", lambda _: _CONTEXT)
        warm()
        yield


_CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")


@cache
def warm() -> ForkServerContext:
    """What starts such processes."""
    _CONTEXT.set_forkserver_preload([*_HEAVY, *command_modules(), __name__])
    return _CONTEXT


def command_modules() -> list[str]:
    """Names of the modules that commands consist of."""
    packages = map(import_module, ("polysafe.cli.commands", "polysafe.workflows"))
    return [
        each.name for package in packages for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]


def _carry_out(
    function: Callable[..., object], arguments: Sequence[object], environment: Mapping[str, str], said: Path
) -> None:
    with open(said, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    function(*arguments)


def _command(arguments: list[str], folder: Path) -> None:
    os.chdir(folder)
    if arguments[0] == "python":
        sys.argv = arguments[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
