"""What a result was computed with, and that it tells nobody's name."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.reproduce import environment as module
from polysafe.reproduce.compare import compare_environments
from polysafe.reproduce.environment import Environment, Library, environment, libraries
from polysafe.reproduce.finding import Severity
from tests.reproduce.conftest import secrets_of_this_machine


def test_the_environment_is_that_of_this_process() -> None:
    found = environment()
    assert found.python["version"] == platform.python_version()
    assert found.torch["version"] == torch.__version__
    build = found.torch["build"]
    assert isinstance(build, tuple)
    assert build[0] == "PyTorch built with:"
    assert f"TORCH_VERSION={torch.__version__.split('+')[0]}" in build[-1]
    assert not any("=/" in line for line in build)
    assert found.torch_threads == torch.get_num_threads()
    assert Environment.model_validate_json(found.model_dump_json()) == found
    assert list(compare_environments(found, environment())) == []


def test_libraries_are_everything_behind_polysafe_with_their_exact_versions() -> None:
    found = libraries()
    assert {"torch", "numpy", "safetensors", "pydantic", "pydantic-core", "sympy", "transformers"} <= found.keys()
    assert {name: each.version for name, each in found.items()} == {name: metadata.version(name) for name in found}
    assert found["numpy"].files is not None
    assert "ruff" not in found  # for working on polysafe; nothing imports it


def test_nothing_tells_whose_machine_it_was() -> None:
    found = environment()
    text = found.model_dump_json() + found.requirements()
    for secret in (*secrets_of_this_machine(), str(Path(module.__file__).parents[3])):
        assert secret not in text


def _environment(**libraries: Library) -> Environment:
    return environment().model_copy(update={"libraries": libraries})


def test_requirements_have_hashes_only_where_all_have_them() -> None:
    bare, hashed = Library(version="1.0"), Library(version="2.0", archive="b" * 64)
    mixed = _environment(a=bare, b=hashed).requirements()
    assert "\na==1.0\n" in mixed
    assert not re.search(r"^[^#\n]*--hash", mixed, re.MULTILINE)
    assert "b" * 64 in mixed
    locked = _environment(b=hashed).requirements()
    assert f"\nb==2.0 --hash=sha256:{'b' * 64}\n" in locked
    wanted = [line for line in locked.splitlines() if line and not line.startswith("#")]
    assert all("--hash" in line for line in wanted)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://example.org/b.whl", "https://example.org/b.whl"),
        ("file:///home/somebody/b.whl", None),
        ("https://user:token@example.org/b.whl", None),
    ],
)
def test_where_a_library_came_from_is_kept_without_places_and_tokens(url: str, kept: str | None) -> None:
    class Installed:
        version = "1.0"

        def read_text(self, name: str) -> str | None:
            content = f'{{"url": "{url}", "archive_info": {{"hashes": {{"sha256": "{"c" * 64}"}}}}}}'
            return content if name == "direct_url.json" else None

    distribution: Any = Installed()
    assert module._library(distribution) == Library(version="1.0", archive="c" * 64, url=kept)


def test_hash_of_the_files_leaves_out_what_differs_between_machines() -> None:
    record = "a/b.py,sha256=1,2\n../../bin/x,sha256=3,4\na-1.dist-info/INSTALLER,sha256=5,6\na/__pycache__/b.pyc,,\n"
    only = "a/b.py,sha256=1,2\n"
    assert module._files_sha256(record) == module._files_sha256(only) != module._files_sha256("a/b.py,sha256=9,2\n")
    assert module._files_sha256("") is None


@pytest.mark.parametrize(
    ("old", "new", "severity"),
    [
        ({"a": Library(version="1.0")}, {"a": Library(version="1.1")}, Severity.ENVIRONMENT),
        ({"a": Library(version="1.0", files="x")}, {"a": Library(version="1.0", files="y")}, Severity.ENVIRONMENT),
        ({"a": Library(version="1.0")}, {}, Severity.ENVIRONMENT),
        ({}, {"a": Library(version="1.0")}, Severity.NOTE),
    ],
)
def test_libraries_are_compared(old: dict[str, Library], new: dict[str, Library], severity: Severity) -> None:
    (finding,) = compare_environments(_environment(**old), _environment(**new))
    assert (finding.severity, finding.what.split(":")[0]) == (severity, "library a")


@pytest.mark.hostile("reproduction")
@pytest.mark.parametrize("number", ["many", 0, -3, None, 10**9])
def test_a_record_from_elsewhere_cannot_ask_for_any_number_of_threads(number: Any) -> None:
    assert environment().model_copy(update={"threads": {"torch": number}}).torch_threads == 1
