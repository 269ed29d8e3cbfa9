from __future__ import annotations

import os
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
from tests.engine.recipes import SOUP, recipe_for
from tests.faults.disks import enlarge, mounted
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


@pytest.mark.fault(10, "every durable point")
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


@pytest.mark.fault(11, "full at any write, flush and rename")
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
    calls = durable_calls(recipe)  # later runs make fewer: what is known of the inputs is remembered
    for point in (5, 9, 14, 6, calls // 3):
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


@pytest.mark.fault(10, "a power cut")
@pytest.mark.hostile("output")
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", 64) as place:
        yield place


@pytest.mark.fault(11, "a full small disk", "another file system")
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
    enlarge(small_disk)
    run_recipe(recipe)
    assert verify_output(recipe.output.path).ok
