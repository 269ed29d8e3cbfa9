"""Runs a recipe again and again, each time in a process of its own that ends by SIGKILL, and reports what was there.

Called as `python killed.py RECIPE OUTPUT ROUNDS`. One round is a run that is killed at random points until it gets
through. Every point is either a random amount of progress, at which the process kills itself, or a random moment, at
which its parent does. Imports are paid once: the processes are forks.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

from polysafe.checkpoint import writer
from polysafe.errors import PolysafeError
from polysafe.recipe.recipe import load_recipe
from polysafe.workflows.run import run_recipe

writer.SYNC_BYTES = 1
os.fsync = lambda fd: None  # a killed process takes nothing from the system's memory


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [[str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def attempt(recipe: Path, *, at: int | None, after: float | None) -> int:
    """One run in a process that is killed at a number of progress calls, or after some seconds; its wait status."""
    child = os.fork()
    if child == 0:
        calls = 0

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            run_recipe(load_recipe(recipe), progress=progress)
            status = 0
        except PolysafeError as error:
            sys.stderr.write(f"{error}\n")
        finally:
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def main(recipe: Path, output: Path, rounds: int) -> None:
    chance = random.Random(0)
    kills, states = 0, set()
    for _ in range(rounds):
        while not output.exists():
            kind = chance.random()
            status = attempt(
                recipe,
                at=chance.randrange(1, 80) if kind < 0.6 else None,
                after=chance.uniform(0, 0.15) if 0.6 <= kind < 0.9 else None,
            )
            if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
                sys.exit("a run was refused after a kill")
            kills += os.WIFSIGNALED(status)
        states.add(digest(output))
        output.rename(output.with_name(f"done-{time.monotonic_ns()}"))
    json.dump({"kills": kills, "states": sorted(states)}, sys.stdout)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside the threads of torch
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
