"""Sources that are GGUF files: found again by their hash, in the cache, in a package, or beside the record."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from polysafe.checkpoint.digest import cache_directory
from polysafe.checkpoint.imported import read_imported
from polysafe.errors import DataError
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.reproduce.inputs import Input, check_inputs, family_inputs, recipe_inputs, resolve
from polysafe.workflows.evaluate import evaluate_recipe
from polysafe.workflows.reproduce import reproduce
from tests.gguf_files import install_package, needs_gguf, write_gguf

pytestmark = needs_gguf()

FILE = "tiny.Q4_1.gguf"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    return write_gguf(tmp_path / "elsewhere" / FILE, type="Q4_1")


def recipe(place: str, folder: Path) -> Recipe:
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {"base": {"gguf": place}},
            "edits": [{"method": "soup", "weights": {"base": 1.0}}],
            "output": {"path": "./out"},
            "evaluate": {"languages": ["en"], "safety": ["asked.csv"], "template": "raw"},
        },
        folder=folder,
    )


def inputs(place: str, folder: Path) -> dict[str, Input]:
    """What a record says, once it was written and read."""
    (folder / "asked.csv").write_text("en\nask this\nask that\n")
    found = recipe_inputs(recipe(place, folder))
    return {"base": Input.model_validate_json(found["base"].model_dump_json())}


def gone(file: Path) -> None:
    """What was imported is no longer there."""
    shutil.rmtree(cache_directory() / "gguf", ignore_errors=True)
    file.unlink(missing_ok=True)


def same(wanted: dict[str, Input], found: dict[str, Path]) -> bool:
    return list(check_inputs(wanted, found)) == []


def test_what_was_imported_on_this_machine_is_in_the_cache(file: Path, tmp_path: Path) -> None:
    wanted = inputs(str(file), tmp_path)
    assert str(tmp_path) not in wanted["base"].model_dump_json()
    file.unlink()
    assert same(wanted, resolve(wanted, {}, tmp_path / "results" / "reproduce"))


def test_a_package_that_holds_the_file_is_found(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    install_package(tmp_path / "site", "tiny-model", {FILE: file.read_bytes(), "other.gguf": b"GGUF"})
    wanted = inputs(f"package:tiny-model/{FILE}", tmp_path)
    assert wanted["base"].imported is not None
    gone(file)
    assert same(wanted, resolve(wanted, {}, tmp_path / "results"))
    write_gguf(tmp_path / "site" / "tiny_model" / FILE, type="Q4_1", seed=1)
    gone(file)
    with pytest.raises(DataError, match="is not found") as caught:
        resolve(wanted, {}, tmp_path / "results")
    assert wanted["base"].imported.sha256 in str(caught.value)
    assert "pip install tiny-model==1.0, or add --source base=FILE.gguf" in str(caught.value.remedy)


@pytest.mark.parametrize("place", ["results/reproduce/sources", "results/reproduce", "results"])
def test_a_file_is_found_beside_the_record(file: Path, tmp_path: Path, place: str) -> None:
    wanted, content = inputs(str(file), tmp_path), file.read_bytes()
    gone(file)
    (tmp_path / place).mkdir(parents=True)
    write_gguf(tmp_path / place / FILE, type="Q4_1", seed=1)
    with pytest.raises(DataError, match=r"the file tiny.Q4_1.gguf, of which the model 'base' was made, is not found"):
        resolve(wanted, {}, tmp_path / "results" / "reproduce")
    (tmp_path / place / FILE).write_bytes(content)
    assert same(wanted, resolve(wanted, {}, tmp_path / "results" / "reproduce"))


def test_the_user_may_name_the_file_or_a_folder(file: Path, tmp_path: Path) -> None:
    wanted = inputs(str(file), tmp_path)
    folder = tmp_path / "kept"
    shutil.copytree(resolve(wanted, {}, tmp_path)["base"], folder)
    moved = file.rename(tmp_path / "any name.gguf")
    gone(file)
    assert same(wanted, resolve(wanted, {"base": moved}, tmp_path))
    gone(file)
    assert resolve(wanted, {"base": folder}, tmp_path) == {"base": folder}
    other = write_gguf(tmp_path / "other.gguf", type="Q4_1", seed=1)
    assert not same(wanted, resolve(wanted, {"base": other}, tmp_path))


def test_other_inputs_are_written_as_before(file: Path, tmp_path: Path) -> None:
    folder = resolve(inputs(str(file), tmp_path), {}, tmp_path)["base"]
    plain = family_inputs({"m": folder})["m"]
    assert set(json.loads(plain.model_dump_json())) == {"kind", "hub", "revision", "packaged", "files"}


@pytest.mark.hostile("reproduction")
@pytest.mark.parametrize("change", [{"file": "../x.gguf"}, {"file": "x"}, {"sha256": "../../x"}, {"dtype": "../BF16"}])
def test_a_record_leads_nowhere_else(file: Path, tmp_path: Path, change: dict[str, str]) -> None:
    folder = resolve(inputs(str(file), tmp_path), {}, tmp_path)["base"]
    (record,) = read_imported(folder)
    with pytest.raises(ValidationError):
        Input(kind="model", imported=replace(record, **change), files={})  # type: ignore[arg-type]


def test_results_of_a_file_are_made_again_without_a_word(file: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    (tmp_path / "asked.csv").write_text("en\nask this\nask that\n")
    cache = tmp_path / "cache.sqlite"
    evaluate_recipe(recipe(str(file), tmp_path), tmp_path / "results", max_tokens=2, cache=cache)
    content = file.read_bytes()
    gone(file)
    (tmp_path / "results" / FILE).write_bytes(content)
    readme = (tmp_path / "results" / "reproduce" / "README.md").read_text()
    assert f"made of `{FILE}`" in readme
    done = reproduce(tmp_path / "results", tmp_path / "again", sources={"asked.csv": tmp_path / "asked.csv"})
    assert done.exit_code == 0, done.findings
