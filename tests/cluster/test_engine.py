from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from polysafe.checkpoint.verify import verify_output
from polysafe.cluster import engine, pool
from polysafe.cluster.engine import RayEngine
from polysafe.cluster.pool import Cluster, RayCrew
from polysafe.engine.local import LocalEngine, ShardTask
from polysafe.errors import CheckpointError, ResourceError
from polysafe.recipe.recipe import Recipe
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import recipe_for
from tests.models import trio


@pytest.fixture
def recipes(tmp_path: Path) -> tuple[Recipe, Recipe]:
    """The same in two places, of several files each."""
    paths = trio(tmp_path, shards=3).paths
    here, there = (recipe_for(paths, tmp_path / name, shard_size=9_000) for name in ("here", "there"))
    return here, there


def test_the_bytes_are_those_of_this_machine(recipes: tuple[Recipe, Recipe], cluster: Cluster) -> None:
    here = run_recipe(recipes[0], engine=LocalEngine()).output
    there = run_recipe(recipes[1], engine=RayEngine(cluster)).output
    files = [
        {name: content for name, content in snapshot(folder).items() if not name.endswith((".yaml", "plan.json"))}
        for folder in (here, there)
    ]
    assert len(list(there.glob("*.safetensors"))) > 2
    assert files[0] == files[1]
    assert verify_output(there).ok


def test_progress_ends_with_all_bytes(recipes: tuple[Recipe, Recipe], cluster: Cluster) -> None:
    told: list[tuple[str, int, int]] = []
    made = run_recipe(recipes[1], engine=RayEngine(cluster), progress=lambda *step: told.append(step)).output
    writing = [(done, total) for stage, done, total in told if stage == "writing"]
    assert writing[-1][0] == writing[-1][1] == sum(path.stat().st_size for path in made.glob("*.safetensors"))
    assert [done for done, _ in writing] == sorted(done for done, _ in writing)


def _killed_once(mark: Path, number: int) -> None:
    """Ends this process the first time that somebody comes here."""
    if not mark.exists():
        mark.write_text("was here")
        os.kill(os.getpid(), number)


class KilledTask(ShardTask):
    """A task whose process is killed after the file was written in part, once."""

    def execute(self, advance: object) -> str:
        path = self.folder / self.shard.name
        if not path.exists():
            path.write_bytes(self.shard.header + b"half")
        _killed_once(self.progress_file.with_suffix(".killed"), signal.SIGKILL)
        return super().execute(lambda _: None)


class KillingEngine(RayEngine):
    def execute(self, tasks: object, advance: object) -> list[str]:
        return super().execute([KilledTask(**vars(task)) for task in tasks], advance)  # type: ignore[attr-defined, arg-type]


def test_a_killed_worker_costs_its_task_only(recipes: tuple[Recipe, Recipe], cluster: Cluster) -> None:
    here = run_recipe(recipes[0]).output
    there = run_recipe(recipes[1], engine=KillingEngine(cluster)).output
    for file in here.glob("*.safetensors"):
        assert file.read_bytes() == (there / file.name).read_bytes()


def test_what_is_wrong_is_told_as_here(recipes: tuple[Recipe, Recipe], cluster: Cluster) -> None:
    class Vanishing(RayEngine):
        def execute(self, tasks: object, advance: object) -> list[str]:
            source = Path(recipes[1].sources["sw"].path or "")
            for file in source.glob("*.safetensors"):
                file.rename(file.with_suffix(".gone"))
            return super().execute(tasks, advance)  # type: ignore[arg-type]

    with pytest.raises(CheckpointError, match=r"sw.*safetensors") as caught:
        run_recipe(recipes[1], engine=Vanishing(cluster))
    assert not isinstance(caught.value, ResourceError)
    assert not recipes[1].output.path.exists()


def _lost(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_that_is_always_lost_is_given_up(
    recipes: tuple[Recipe, Recipe], cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RETRIES", 0)
    monkeypatch.setattr(engine, "_write", _lost)
    with pytest.raises(ResourceError, match="a process of the cluster went away") as caught:
        run_recipe(recipes[1], engine=RayEngine(cluster))
    assert "run the same command again" in str(caught.value.remedy)
    assert not recipes[1].output.path.exists()
    monkeypatch.undo()
    assert verify_output(run_recipe(recipes[1], engine=RayEngine(cluster)).output).ok


def test_a_task_whose_values_went_away_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    gone = ray.exceptions.RayTaskError("write", "a traceback", ray.exceptions.RaySystemError("its owner has exited"))
    monkeypatch.setattr(ray, "get", Mock(side_effect=gone))
    with pytest.raises(ResourceError, match=r"a process of the cluster went away.*its owner has exited"):
        pool.result(Mock())


def test_the_command_line_starts_a_cluster_or_says_that_there_is_none(
    recipes: tuple[Recipe, Recipe], tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipes[0].to_yaml())
    done = _polysafe("run", str(file), "--engine", "ray", "--address", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "127.0.0.1:1: no cluster can be had" in done.stderr
    assert "ray start" in done.stderr
    assert not recipes[0].output.path.exists()
    done = _polysafe("run", str(file), "--engine", "ray", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == str(recipes[0].output.path)
    assert verify_output(recipes[0].output.path).ok


def test_a_killed_command_goes_on(recipes: tuple[Recipe, Recipe], cluster: Cluster, tmp_path: Path) -> None:
    wanted = run_recipe(recipes[0]).output
    file = tmp_path / "recipe.yaml"
    file.write_text(recipes[1].to_yaml())
    command = ["run", str(file), "--engine", "ray", "--address", cluster.address or "", "--quiet"]
    target = recipes[1].output.path
    first = subprocess.Popen([sys.executable, "-m", "polysafe", *command], stderr=subprocess.DEVNULL)
    while first.poll() is None and not list(target.parent.glob(f".{target.name}*/content/*.safetensors")):
        time.sleep(0.05)
    first.kill()
    first.wait()
    done = _polysafe(*command)
    assert done.returncode == 0, done.stderr
    for path in wanted.glob("*.safetensors"):
        assert path.read_bytes() == (target / path.name).read_bytes()


def test_a_crew_of_the_cluster_does_what_one_of_this_machine_does(cluster: Cluster) -> None:
    with RayCrew(cluster) as crew:
        tasks = [crew.submit(pow, number, 2) for number in range(4)]
        assert [crew.result(task) for task in tasks] == [0, 1, 4, 9]
        with pytest.raises(CheckpointError, match="of this size"):
            crew.result(crew.submit(_refuse, "of this size"))


def _refuse(problem: str) -> None:
    raise CheckpointError(problem, where="a file", remedy="another file")


def _polysafe(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polysafe", *words]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
