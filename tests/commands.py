"""Runs `polysafe` commands as processes of their own that have imported the heavy libraries already."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shlex
import sys
from collections.abc import Mapping
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
    """Exit status and output of a line `polysafe …`, in which variables may stand but no pipes.

    Python keeps one process that waits with everything imported; every command is a fork of it, with one thread:
    what was imported cannot be told another number later.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_HEAVY, __name__])
    said = folder / ".said"
    arguments = shlex.split(Template(line).substitute(environment))
    process = context.Process(target=_command, args=(arguments, folder, dict(environment), said))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        process.start()
    process.join()
    text = said.read_text(encoding="utf-8")
    said.unlink()
    assert process.exitcode is not None
    return process.exitcode, text


def _command(arguments: list[str], folder: Path, environment: Mapping[str, str], said: Path) -> None:
    with open(said, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
