"""Does a piece of work again and again, in processes that end by SIGKILL, and looks what is there.

`kill` is for a process of its own, whose settings it changes. A round is a work that is killed at random points until
it gets through; rounds go on until there were so many kills. Every point is either a random amount of progress, at
which the process kills itself, or a random moment, at which its parent does. Imports are paid once: the processes are
forks.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from polysafe.checkpoint import writer
from polysafe.errors import CheckpointError, PolysafeError
from polysafe.evaluate.run import evaluate_model
from polysafe.organism import family as making
from polysafe.organism import train as training
from polysafe.organism.exam import examine
from polysafe.organism.family import build_family
from polysafe.organism.packaged import load_family
from polysafe.search.points import Outcome
from polysafe.search.study import Study
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import LAYER_SWAP, recipe_for
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set
from tests.models import trio
from tests.organism.test_family import RECIPE
from tests.search.made import steering
from tests.search.test_study import FIELDS, made

Tell = Callable[[], None]
POINTS = 25
MODELS = "models"


@dataclass(frozen=True)
class Work:
    """Something that can be interrupted.

    Attributes:
        carry_on: Does it in a folder, or what is left of it, and tells every piece of progress.
        state: What stands there in the end; None as long as nobody would take it for finished.
    """

    carry_on: Callable[[Path, Tell], object]
    state: Callable[[Path], object]


def write(folder: Path, tell: Tell) -> None:
    models = folder.parent / MODELS
    sources = {source.name: source for source in models.iterdir()}
    run_recipe(recipe_for(sources, folder / "out", LAYER_SWAP, shard_size=8000), progress=lambda *_: tell())


def evaluate(folder: Path, tell: Tell) -> None:
    evaluate_model(FakeGenerator(), [prompt_set()], FakeJudge(), output=folder / "out", progress=lambda *_: tell())


def search(folder: Path, tell: Tell) -> None:
    def attempt(setting: Mapping[str, Any]) -> Outcome:
        tell()
        return made(setting)

    (folder / "out").mkdir(exist_ok=True)
    study = Study(folder / "out", steering(FIELDS), "a")
    study.begin()
    study.run(attempt, POINTS)


def build(folder: Path, tell: Tell) -> None:
    build_family(0, folder / "out", threads=1, recipe=RECIPE, progress=lambda *_: tell())


def files(folder: Path) -> object:
    out = folder / "out"
    return (
        {name: hashlib.sha256(content).hexdigest() for name, content in snapshot(out).items()} if out.exists() else None
    )


def points(folder: Path) -> object:
    found = [dict(point.setting) for point in Study(folder / "out", steering(FIELDS), "a").points()]
    return found if len(found) == POINTS else None


def family(folder: Path) -> object:
    try:
        return {name: entry["files"] for name, entry in load_family(folder / "out").record["members"].items()}
    except CheckpointError:  # there is none, or it is not complete
        return None


WORKS = {
    "writing": Work(write, files),
    "evaluating": Work(evaluate, files),
    "searching": Work(search, points),
    "building": Work(build, family),
}


def attempt(work: Work, folder: Path, *, at: int | None = None, after: float | None = None) -> int:
    """One attempt in a process that is killed at a piece of progress, or after some seconds; its wait status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work.carry_on(folder, _killing(folder, at))
            status = 0
        except PolysafeError as error:
            sys.stderr.write(f"{error}\n")
        finally:
            sys.stderr.flush()
            os._exit(status)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _killing(folder: Path, at: int | None) -> Tell:
    calls = 0

    def tell() -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if at is None:
            (folder / "calls").write_text(str(calls), encoding="ascii")

    return tell


def trouble(name: str, place: Path, kills: int) -> dict[str, int]:
    """Kills a work so many times, each time looks at what stands there, and counts what was done."""
    work, chance = WORKS[name], random.Random(name)
    whole = place / "whole"
    whole.mkdir(parents=True)
    if name == "writing":
        trio(place / MODELS, layers=2)
    began = time.monotonic()
    if attempt(work, whole) != 0:
        sys.exit(f"{name} fails without a kill")
    seconds, calls = time.monotonic() - began, int((whole / "calls").read_text(encoding="ascii"))
    wanted, done, rounds = work.state(whole), 0, 0
    while done < kills:
        rounds += 1
        folder = place / f"round {rounds}"
        folder.mkdir()
        done += _round(work, folder, wanted, chance, calls, seconds)
    return {"kills": done, "rounds": rounds, "calls": calls}


def _round(work: Work, folder: Path, wanted: object, chance: random.Random, calls: int, seconds: float) -> int:
    """The number of kills until the work was done; whatever is there is absent or whole after every one of them."""
    kills = 0
    while True:
        kind = chance.random()
        status = attempt(
            work,
            folder,
            at=chance.randrange(1, 1 + calls // 2) if kind < 0.6 else None,
            after=chance.uniform(0, seconds) if 0.6 <= kind < 0.95 else None,
        )
        kills += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
            sys.exit("an attempt was refused after a kill")
        state = work.state(folder)
        if state not in (None, wanted):
            sys.exit(f"something else stands there after {kills} kills: {state}")
        if os.WIFEXITED(status):
            if state != wanted:
                sys.exit("it says that all is done, and is not")
            return kills


def hurry() -> None:
    """Settings of a process that is killed: it writes often, and waits for no disk."""
    writer.SYNC_BYTES = 1
    training.SAVE_EVERY_SECONDS = 0.0
    # What is built matters here, not what it knows.
    making.examine = partial(examine, sets=("arithmetic",))  # type: ignore[attr-defined]
    os.fsync = lambda fd: None  # a killed process takes nothing from the system's memory


def kill(place: Path, works: Mapping[str, int]) -> None:
    """Kills every work so often, and prints what was done, in the last line."""
    hurry()
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside the threads of torch
    found = {name: trouble(name, place / name, kills) for name, kills in works.items()}
    sys.stdout.write(f"\n{json.dumps(found)}\n")
