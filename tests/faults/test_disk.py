"""Disks that are full, quotas, folders that may not be written to or go away: told, and gone on from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polysafe.checkpoint.verify import verify_output
from polysafe.errors import OutputError, PolysafeError
from polysafe.evaluate.run import evaluate_model
from polysafe.organism.family import build_family
from polysafe.search.study import Study
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import SOUP, recipe_for
from tests.evaluate.fakes import FakeGenerator, FakeJudge, prompt_set
from tests.faults.disks import enlarge, mounted
from tests.models import Trio, trio
from tests.organism.test_family import RECIPE
from tests.search.made import steering
from tests.search.test_study import FIELDS, made
from tests.workflows.run.moments import At


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return trio(tmp_path_factory.mktemp("models"), layers=2)


def evaluate(out: Path, **options: Any) -> None:
    wordy = FakeGenerator(lambda text: f"{text} " * 200)
    evaluate_model(wordy, [prompt_set(rows=20)], FakeJudge(), output=out, **options)


def search(out: Path) -> None:
    out.mkdir(exist_ok=True)
    study = Study(out, steering(FIELDS), "a")
    study.begin()
    study.run(made, 30)


def build(out: Path) -> None:
    build_family(0, out, threads=1, recipe=RECIPE)


WORKS = {"evaluating": evaluate, "searching": search, "building": build}


@pytest.mark.parametrize("work", [pytest.param(w, marks=pytest.mark.fault(11, "a full small disk")) for w in WORKS])
def test_a_small_disk_that_fills_up_is_told_and_gone_on_from(work: str, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 64) as disk:
        with pytest.raises(OutputError, match="the disk is full"):
            WORKS[work](disk / "out")
        enlarge(disk)
        WORKS[work](disk / "out")
        if work == "evaluating":
            evaluate(tmp_path / "whole")
            assert snapshot(disk / "out") == snapshot(tmp_path / "whole")


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from polysafe.cli import main
main()
"""


def command(*arguments: object, program: str = "from polysafe.cli import main; main()") -> Any:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(line, check=False, capture_output=True, text=True, env=environment)


@pytest.mark.fault(11, "a quota")
def test_a_quota_is_told_and_gone_on_from(models: Trio, tmp_path: Path) -> None:
    recipe = recipe_for(models.paths, tmp_path / "out", SOUP)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    refused = command("run", tmp_path / "recipe.yaml", program=LIMITED)
    assert refused.returncode == 2
    assert "File too large" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not recipe.output.path.exists()
    run_recipe(recipe)
    assert verify_output(recipe.output.path).ok


@pytest.mark.fault(11, "a folder that vanishes")
@pytest.mark.parametrize("what", ["workspace", "parent"])
def test_a_folder_that_vanishes_while_it_is_written_is_told(what: str, models: Trio, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    gone = parent if what == "parent" else parent / ".out.polysafe"
    recipe = recipe_for(models.paths, parent / "out", SOUP, shard_size=4000)
    with pytest.raises(PolysafeError):
        run_recipe(recipe, progress=At(0.5, lambda: shutil.rmtree(gone)))
    assert not recipe.output.path.exists()
    parent.mkdir(exist_ok=True)
    run_recipe(recipe)
    assert verify_output(recipe.output.path).ok


@pytest.mark.fault(11, "a folder that vanishes")
def test_a_folder_that_vanishes_while_answers_are_asked_is_told(tmp_path: Path) -> None:
    calls = 0

    def progress(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            shutil.rmtree(tmp_path / "parent")

    with pytest.raises(PolysafeError):
        evaluate(tmp_path / "parent" / "out", progress=progress)
    evaluate(tmp_path / "parent" / "out")
    evaluate(tmp_path / "whole")
    assert snapshot(tmp_path / "parent" / "out") == snapshot(tmp_path / "whole")


@pytest.mark.fault(11, "a folder that vanishes")
def test_a_working_folder_that_is_gone_ends_in_no_traceback(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = "import os, sys; os.chdir(sys.argv.pop(1)); os.rmdir(os.getcwd())\nfrom polysafe.cli import main; main()"
    for arguments, code in ((("--version",), 0), (("plan", "recipe.yaml"), 2), (("run", "recipe.yaml"), 2)):
        gone.mkdir(exist_ok=True)
        ended = command(gone, *arguments, program=program)
        assert "Traceback" not in ended.stderr
        assert ended.returncode == code, ended.stderr


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder that every user may look into, and nobody but root may write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(work: Callable[[], object]) -> str:
    """What comes of a piece of work in a process of a user that is not root: `done`, or the words of its error."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            work()
            said = "done"
        except PolysafeError as error:
            said = str(error)
        except BaseException as error:  # noqa: BLE001 (nothing may leave the child)
            said = f"a defect: {error!r}"
        os.write(sender, said.encode())
        os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver, encoding="utf-8") as stream:
        return stream.read()


@pytest.mark.fault(11, "a read-only folder, for a user that is not root")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_read_only_folder_is_told_to_a_user_that_is_not_root(nobodys: Path) -> None:
    models = trio(nobodys / "models", layers=2)
    mine, theirs = nobodys / "mine", nobodys / "theirs"
    mine.mkdir()
    theirs.mkdir()
    mine.chmod(0o777)
    for path in (nobodys / "models").rglob("*"):
        path.chmod(0o755)
    theirs.chmod(0o555)
    run_recipe(recipe_for(models.paths, mine / "imported", SOUP))  # a child finds every module imported
    evaluate(mine / "asked")
    works: dict[str, Callable[[Path], object]] = {
        "run": lambda place: run_recipe(recipe_for(models.paths, place, SOUP)),
        "evaluate": evaluate,
    }
    for name, work in works.items():
        assert as_nobody(lambda work=work, name=name: work(mine / name)) == "done"  # type: ignore[misc]
        assert "Permission denied" in as_nobody(lambda work=work, name=name: work(theirs / name))  # type: ignore[misc]
    assert list(theirs.iterdir()) == []
    assert verify_output(mine / "run").ok
