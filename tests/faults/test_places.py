"""Names that systems disagree on, and what the user's umask says of every file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.verify import verify_output
from polysafe.errors import CheckpointError, OutputError, PolysafeError
from polysafe.recipe.recipe import load_recipe
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import one_tensor, raw, write_config, write_index
from tests.engine.recipes import recipe_for
from tests.faults.killed import evaluate, points, search
from tests.models import trio

LONG = Path(*["a rather long name of a folder " * 3] * 4)
NAMES = {
    "more than 260 characters": LONG,
    "other alphabets": Path("модели 模型 モデル ☂"),
    "marks apart": Path("re\u0301pertoire"),
    "right to left": Path("\u202eledom"),
    "no UTF-8": Path(os.fsdecode(b"caf\xe9")),
    "a line break": Path("one\ntwo"),
}


@pytest.mark.fault(11, "long and non-ASCII names")
@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_of_any_name(name: str, tmp_path: Path) -> None:
    place = tmp_path / NAMES[name]
    try:
        place.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"this file system has no such names: {error.strerror}")
    assert len(str(LONG)) > 260
    models = trio(place / "models", layers=2)
    run_recipe(recipe_for(models.paths, place / "out"))
    assert verify_output(place / "out").ok
    evaluate(place / "models", lambda: None)
    search(place, lambda: None) if name != "no UTF-8" else None
    assert points(place) is not None or name == "no UTF-8"


@pytest.mark.fault(11, "long and non-ASCII names")
def test_a_path_longer_than_any_system_takes_is_told(tmp_path: Path) -> None:
    models = trio(tmp_path / "models", layers=2)
    with pytest.raises(OutputError, match="too long"):
        run_recipe(recipe_for(models.paths, tmp_path / Path(*["x" * 200] * 30)))
    with pytest.raises(PolysafeError, match="too long"):
        load_recipe(tmp_path / Path(*["x" * 200] * 30))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / Path(*["x" * 200] * 30))


def two_shards(folder: Path) -> Path:
    """A checkpoint whose shards differ in the case of one letter."""
    write_config(folder)
    (folder / "A.safetensors").write_bytes(one_tensor("first"))
    write_index(folder, {"first": "A.safetensors", "second": "a.safetensors"})
    return folder


@pytest.mark.fault(11, "names that differ in case")
def test_shards_that_differ_in_case_are_two_where_the_system_says_so(tmp_path: Path) -> None:
    folder = two_shards(tmp_path / "model")
    if (folder / "a.safetensors").exists():
        pytest.skip("this file system does not tell cases apart")
    (folder / "a.safetensors").write_bytes(one_tensor("second"))
    assert set(open_checkpoint(folder).tensors) == {"first", "second"}


@pytest.mark.fault(11, "names that differ in case")
@pytest.mark.parametrize("both", [False, True])
def test_shards_that_are_one_file_are_refused(both: bool, tmp_path: Path) -> None:
    """So it is on systems that do not tell cases apart; a hard link is what they show."""
    folder = two_shards(tmp_path / "model")
    if both:
        tensors = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]}
                   for n, name in enumerate(("first", "second"))}  # fmt: skip
        (folder / "A.safetensors").write_bytes(raw(tensors, bytes(8)))
    if not (folder / "a.safetensors").exists():
        os.link(folder / "A.safetensors", folder / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"is not in this file|is also in"):
        open_checkpoint(folder)


@pytest.mark.fault(11, "names that differ in case")
def test_outputs_that_differ_in_case_from_an_input_are_told_apart_as_the_system_does(tmp_path: Path) -> None:
    models = trio(tmp_path / "models", layers=2)
    target = models.base.with_name("BASE")
    recipe = recipe_for(models.paths, target)
    if target.exists():  # the same folder
        with pytest.raises(OutputError):
            run_recipe(recipe)
    else:
        run_recipe(recipe)
        assert verify_output(target).ok


@pytest.mark.fault(14, "the umask")
@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("work", [evaluate, search], ids=["evaluating", "searching"])
def test_the_umask_decides_who_may_read_what_is_kept(
    umask: int, work: Callable[[Path, Callable[[], None]], object], tmp_path: Path
) -> None:
    before = os.umask(umask)
    try:
        work(tmp_path, lambda: None)
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert made
    assert {path.stat().st_mode & 0o777 for path in made} == {0o666 & ~umask}
