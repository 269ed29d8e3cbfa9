from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from polysafe.checkpoint import writer
from polysafe.checkpoint.verify import verify_output
from polysafe.errors import OutputError, ResourceError
from polysafe.recipe.recipe import Recipe
from polysafe.workflows.run import run_recipe
from tests.checkpoint.faults import KilledError, disk_full, failing
from tests.checkpoint.raw import snapshot
from tests.engine import killed
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import Trio, trio


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return trio(tmp_path_factory.mktemp("small"), layers=2)


@pytest.fixture
def recipe(small: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Two shards, and a durable point after every tensor."""
    monkeypatch.setattr(writer, "SYNC_BYTES", 1)
    return recipe_for(small.paths, tmp_path / "out", SOUP, shard_size=8000)


@pytest.fixture
def wanted(recipe: Recipe) -> dict[str, bytes]:
    run_recipe(recipe)
    return take(recipe)


def take(recipe: Recipe) -> dict[str, bytes]:
    """The files of the output, which is moved away."""
    assert verify_output(recipe.output.path).ok
    files = snapshot(recipe.output.path)
    recipe.output.path.rename(recipe.output.path.with_name("taken"))
    for path in sorted(recipe.output.path.with_name("taken").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    recipe.output.path.with_name("taken").rmdir()
    return files


def durable_calls(recipe: Recipe) -> int:
    with failing(None, KilledError) as counter:
        run_recipe(recipe)
    take(recipe)
    return counter.calls


def test_end_at_every_durable_point_is_resumed_to_the_same_bytes(recipe: Recipe, wanted: dict[str, bytes]) -> None:
    calls = durable_calls(recipe)
    assert calls > 100
    for point in range(1, calls + 1, 3):
        with failing(point, KilledError), pytest.raises(KilledError):
            run_recipe(recipe)
        if recipe.output.path.exists():  # the end came after it was published
            assert snapshot(recipe.output.path) == wanted, point
        else:
            run_recipe(recipe)
        assert take(recipe) == wanted, point


@pytest.mark.parametrize("part", range(8))
def test_disk_full_at_any_durable_point(part: int, recipe: Recipe, wanted: dict[str, bytes]) -> None:
    calls = durable_calls(recipe)
    point = 1 + part * (calls - 1) // 8
    with failing(point, disk_full), pytest.raises(OutputError, match="the disk is full"):
        run_recipe(recipe)
    assert not recipe.output.path.exists()
    run_recipe(recipe)
    assert take(recipe) == wanted


def test_disk_full_in_several_places_one_after_the_other(recipe: Recipe, wanted: dict[str, bytes]) -> None:
    for point in (5, 9, 14, 6, 60, 30):
        with failing(point, disk_full), pytest.raises(OutputError, match="the disk is full"):
            run_recipe(recipe)
        assert not recipe.output.path.exists()
    assert run_recipe(recipe).resumed
    assert take(recipe) == wanted


def damage(recipe: Recipe, change: Callable[[Path], object], pattern: str) -> None:
    work = recipe.output.path.with_name(".out.polysafe")
    found = sorted(work.rglob(pattern))
    assert found
    for path in found:
        change(path)


@pytest.mark.parametrize(
    ("pattern", "change"),
    [
        ("progress/*.json", lambda path: path.write_bytes(b'{"off')),
        ("progress/*.json", lambda path: path.unlink()),
        ("job.json", lambda path: path.write_bytes(b"")),
        ("content/*.safetensors", lambda path: os.truncate(path, 100)),
        ("content/*.safetensors", lambda path: path.unlink()),
        ("content/config.json", lambda path: path.write_bytes(b"")),
        ("content/polysafe/edit.json", lambda path: path.unlink()),
    ],
)
def test_what_a_power_cut_may_take_is_made_again(
    pattern: str, change: Callable[[Path], object], recipe: Recipe, wanted: dict[str, bytes]
) -> None:
    with failing(60, KilledError), pytest.raises(KilledError):
        run_recipe(recipe)
    damage(recipe, change, pattern)
    run_recipe(recipe)
    assert take(recipe) == wanted


def test_kill_nine_at_random_points(small: Trio, tmp_path: Path) -> None:
    """The target is absent or complete whenever a process ended, and always the same when complete."""
    rounds = 12
    target = tmp_path / "out"
    recipe = recipe_for(small.paths, target, LAYER_SWAP, shard_size=8000)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    program = [sys.executable, killed.__file__, str(tmp_path / "recipe.yaml"), str(target), str(rounds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    run_recipe(recipe)
    assert report["states"] == [killed.digest(target)]
    assert report["kills"] > rounds
    assert len(list(tmp_path.glob("done-*"))) == rounds
    assert verify_output(target).ok


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"file systems may not be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(small: Trio, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = trio(small_disk.parent / "models", layers=16)
    recipe = recipe_for(weights.paths, small_disk / "out", SOUP)
    with pytest.raises(ResourceError, match="the disk has"):
        run_recipe(recipe)
    assert list(small_disk.iterdir()) == []
    usage = psutil.disk_usage(str(small_disk))
    monkeypatch.setattr(psutil, "disk_usage", lambda _: usage._replace(free=10**12))
    with pytest.raises(OutputError, match="the disk is full") as caught:
        run_recipe(recipe)
    assert "resumes" in str(caught.value.remedy)
    assert not recipe.output.path.exists()
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    run_recipe(recipe)
    assert verify_output(recipe.output.path).ok
