"""`polysafe doctor` tells what is there and what is broken, and never ends in a traceback."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import Result

from polysafe.workflows import doctor

Polysafe = Callable[..., Result]
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_WORKING_ON_IT = {"dev", "docs", "fuzz"}


def test_every_extra_says_what_it_brings() -> None:
    assert doctor.BRINGS.keys() == PROJECT["optional-dependencies"].keys() - FOR_WORKING_ON_IT


def test_tells_packages_extras_machine_and_caches(
    polysafe: Polysafe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
    (tmp_path / "kept").write_bytes(bytes(1234))
    result = polysafe("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {each["name"] for each in found["packages"]} == {Requirement(line).name for line in PROJECT["dependencies"]}
    assert all(each["installed"] and not each["problem"] for each in found["packages"])
    assert found["caches"]["polysafe"] == {"folder": str(tmp_path), "bytes": 1234}
    assert found["settings"]["HF_TOKEN"] == "set"
    machine = found["machine"]
    assert machine["cores"] >= 1
    assert 0 < machine["memory"]["free"] <= machine["memory"]["total"]
    assert set(machine["disk"]) == {"here", "cache", "temporary"}
    assert None not in machine.values()


def test_a_missing_extra_is_no_error_and_says_what_installs_it(
    polysafe: Polysafe, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, "tokenizers", "optuna")
    result = polysafe("doctor")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if line.startswith("search"))
    assert "lacks optuna, tokenizers" in line or "lacks tokenizers, optuna" in line
    assert "pip install 'polysafe[search]'" in line


@pytest.mark.parametrize("package", ["torch", "psutil", "typer"])
def test_what_polysafe_needs_and_lacks_is_an_error(
    package: str, polysafe: Polysafe, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, package)
    result = polysafe("doctor", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["broken"] == [f"{package}: is not installed"]
    assert f"polysafe cannot work as it is: {package}: is not installed" in result.stderr


def test_a_package_that_does_not_work_is_told_with_its_error(
    polysafe: Polysafe, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = import_module

    def imported(module: str) -> Any:
        if module == "torch":
            raise OSError("libtorch.so: cannot open shared object file")
        return known(module)

    monkeypatch.setattr(doctor, "import_module", imported)
    monkeypatch.setattr(doctor, "_bfloat16", lambda: imported("torch"))
    monkeypatch.setattr(doctor, "_accelerators", lambda: imported("torch"))
    result = polysafe("doctor")
    assert result.exit_code == 1
    assert "torch: cannot be imported: OSError: libtorch.so: cannot open shared object file" in result.stderr
    assert result.stdout.count("cannot be told") == 2


def test_a_version_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    found = doctor._package(Requirement("rich>=13.9"), load=True)
    assert found.problem == "version 1.0 is installed, and >=13.9 is needed"


def _without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name in packages:
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
