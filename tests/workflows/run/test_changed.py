"""Inputs that change during a run, outputs that change after it, and links in a workspace: nothing passes unseen."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from polysafe.checkpoint.output import Workspace
from polysafe.checkpoint.verify import verify_output
from polysafe.errors import CheckpointError, OutputError
from polysafe.workflows.run import run_recipe
from tests.engine.recipes import recipe_for
from tests.models import Trio, trio
from tests.processes import interrupts
from tests.workflows.run.moments import At


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def flip(path: Path) -> None:
    """Changes one bit of a file and puts its modification time back, as programs can."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # clocks of file systems tick some hundred times a second
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.fault(15, "though its time is put back")
def test_source_that_changes_and_looks_as_before(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    weights = models.language / "model.safetensors"
    change = At(0.3, lambda: flip(weights))
    with pytest.raises(CheckpointError, match="changed while it was being read"):
        run_recipe(recipe_for(models.paths, out), progress=change)
    assert change.done
    assert not out.exists()


@pytest.mark.fault(15, "after an interruption")
def test_source_that_changed_after_an_interruption_and_looks_as_before(tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    recipe = recipe_for(models.paths, out, shard_size=4000)
    with pytest.raises(KeyboardInterrupt), interrupts():
        run_recipe(recipe, progress=At(0.5, lambda: signal.raise_signal(signal.SIGINT)))
    flip(models.language / "model.safetensors")
    assert not run_recipe(recipe).resumed
    run_recipe(recipe_for(models.paths, tmp_path / "afresh", shard_size=4000))
    weights = [path.name for path in out.glob("*.safetensors")]
    assert [(out / name).read_bytes() for name in weights] == [
        (tmp_path / "afresh" / name).read_bytes() for name in weights
    ]


@pytest.mark.hostile("output")
@pytest.mark.parametrize("make", [os.link, os.symlink])
def test_nothing_is_resumed_through_a_link(make: Callable[[Path, Path], object], tmp_path: Path, out: Path) -> None:
    models = trio(tmp_path / "models")
    recipe = recipe_for(models.paths, out, shard_size=4000)
    with pytest.raises(KeyboardInterrupt), interrupts():
        run_recipe(recipe, progress=At(0.5, lambda: signal.raise_signal(signal.SIGINT)))
    (shard, *_) = sorted(Workspace(out).content.glob("*.safetensors"))
    shard.rename(tmp_path / "victim")
    make(tmp_path / "victim", shard)
    (tmp_path / "victim").write_bytes(b"precious" * 10_000)
    assert run_recipe(recipe).resumed
    assert (tmp_path / "victim").read_bytes() == b"precious" * 10_000
    assert verify_output(out).ok


@pytest.mark.fault(14, "a flipped bit")
def test_one_bit_of_an_output_is_seen_by_the_next_run(llama: Trio, out: Path) -> None:
    run_recipe(recipe_for(llama.paths, out))
    flip(out / "model.safetensors")
    with pytest.raises(OutputError, match="holds a damaged output"):
        run_recipe(recipe_for(llama.paths, out))
