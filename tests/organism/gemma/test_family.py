"""The family in real languages is built, goes on where it was killed, and is what it says it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from polysafe.checkpoint.imported import read_imported
from polysafe.cli.app import app
from polysafe.errors import CheckpointError, DataError, OutputError
from polysafe.organism.gemma import lora
from polysafe.organism.gemma.family import GemmaFamily, build_gemma, load_gemma
from polysafe.organism.gemma.mixtures import MEMBERS
from polysafe.recipe.recipe import make_recipe
from tests.gemma import RECIPE, imported_gemma, use_tiny_gemma
from tests.real_models import needs
from tests.shared import DATA, needs_data

torch = pytest.importorskip("torch")
pytestmark = [needs_data, needs("peft")]

SOME = ("bn",)
"""The one expert of a build in which all that matters is what it starts from."""


class KilledError(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported_gemma(tmp_path_factory.mktemp("package") / "gemma")


@pytest.fixture(scope="module")
def build(package: Path) -> Iterator[Callable[..., GemmaFamily]]:
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_gemma(patch, package)
        yield lambda output, **options: build_gemma(DATA, output, **{"recipe": RECIPE, **options})


@pytest.fixture(scope="module")
def family(build: Callable[..., GemmaFamily], tmp_path_factory: pytest.TempPathFactory) -> GemmaFamily:
    return build(tmp_path_factory.mktemp("family") / "seed-0")


def test_members_are_whole_models_and_adapters_of_the_same_weights(family: GemmaFamily) -> None:
    from polysafe.checkpoint.lora import open_adapter, open_reader
    from polysafe.checkpoint.source import open_checkpoint
    from tests.models import read_weights

    assert set(family.members) == {"base", *MEMBERS}
    aligned = open_checkpoint(family.members["aligned"])
    for name in ("safety", "bn", "harm"):
        merged = read_weights(family.members[name])
        with open_reader(open_adapter(family.adapters[name], aligned)) as reader:
            start = read_weights(family.members["aligned"])
            changed = {tensor for tensor in merged if not torch.equal(merged[tensor], start[tensor])}
            assert changed
            for tensor in merged:
                torch.testing.assert_close(reader.whole(tensor).float(), merged[tensor].float(), rtol=0.01, atol=1e-3)
        assert all(("self_attn" in tensor) or name != "harm" for tensor in changed)


def test_the_record_says_what_it_was_made_of(family: GemmaFamily) -> None:
    record = family.record
    assert record["recipe"] == json.loads(RECIPE.model_dump_json())
    assert {"multijail", "xstest", "advbench"} < set(record["data"])
    assert all(entry["cpu_seconds"] >= 0 for entry in record["members"].values())
    assert family.info()["bytes"] > 0


def test_the_terms_go_with_every_member(family: GemmaFamily) -> None:
    for folder in (*family.members.values(), *family.adapters.values()):
        (record,) = read_imported(folder)
        assert record.quantised == ("Q4_K",)
        assert (folder / "LICENSE.txt").read_text(encoding="utf-8") == "terms"


def test_members_can_be_the_sources_of_a_recipe(family: GemmaFamily, tmp_path: Path) -> None:
    from polysafe.workflows.run import run_recipe

    sources = {
        "aligned": {"path": str(family.members["aligned"])},
        "safety": {"path": str(family.adapters["safety"]), "adapter_of": "aligned"},
        "bn": {"path": str(family.members["bn"])},
    }
    edit = {"method": "layer_swap", "base": "aligned", "safety": "safety", "language": "bn"}
    output = {"path": str(tmp_path / "out")}
    recipe = make_recipe({"polysafe": 1, "sources": sources, "edits": [edit], "output": output})
    assert (run_recipe(recipe).output / "model.safetensors").is_file()


def test_what_is_there_is_kept_and_what_is_missing_is_made_again(
    family: GemmaFamily, build: Callable[..., GemmaFamily], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(family.root, copy)
    kept = (copy / "bn" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(copy / "ko")
    (copy / "adapters" / "te" / "adapter_config.json").unlink()
    again = build(copy)
    assert (copy / "bn" / "model.safetensors").stat().st_mtime_ns == kept
    for name in ("ko", "te"):
        assert again.record["members"][name]["files"] == family.record["members"][name]["files"]


def test_a_killed_training_goes_on_and_ends_the_same(
    family: GemmaFamily, build: Callable[..., GemmaFamily], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "_SAVE_EVERY_SECONDS", 0.0)
    steps: list[int] = []
    padded = lora._padded

    def counting(rows: Any) -> Any:
        steps.append(len(rows))
        if len(steps) == 6:
            raise KilledError
        return padded(rows)

    monkeypatch.setattr(lora, "_padded", counting)
    with pytest.raises(KilledError):
        build(tmp_path / "killed", members=SOME)
    assert (tmp_path / "killed" / ".aligned.state").is_file()
    again = build(tmp_path / "killed", members=SOME)
    assert again.record["members"]["aligned"]["files"] == family.record["members"]["aligned"]["files"]
    assert not (tmp_path / "killed" / ".aligned.state").exists()


def test_another_family_is_not_written_over(family: GemmaFamily, build: Callable[..., GemmaFamily]) -> None:
    with pytest.raises(OutputError, match="another seed"):
        build(family.root, seed=1)
    with pytest.raises(OutputError, match="another recipe"):
        build(family.root, recipe=RECIPE.model_copy(update={"longest": 60}))


def test_seeds_differ(family: GemmaFamily, build: Callable[..., GemmaFamily], tmp_path: Path) -> None:
    other = build(tmp_path / "seed-1", seed=1, members=SOME)
    assert other.record["members"]["base"]["files"] == family.record["members"]["base"]["files"]
    assert other.record["members"]["aligned"]["files"] != family.record["members"]["aligned"]["files"]


def test_a_changed_file_is_found(family: GemmaFamily, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(family.root, copy)
    (copy / "sw" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="differs from what was trained"):
        load_gemma(copy)
    with pytest.raises(CheckpointError, match="no family"):
        load_gemma(tmp_path)


def test_missing_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="advbench"):
        build_gemma(tmp_path, tmp_path / "out")


def test_the_whole_vocabulary_can_be_kept(build: Callable[..., GemmaFamily], package: Path, tmp_path: Path) -> None:
    found = build(tmp_path / "whole", whole_vocabulary=True, members=SOME)
    folders = (package, found.members["aligned"])
    sizes = [json.loads((each / "config.json").read_text(encoding="utf-8")) for each in folders]
    assert sizes[0]["vocab_size"] == sizes[1]["vocab_size"]


def test_the_command_asks_for_the_texts() -> None:
    result = CliRunner().invoke(app, ["organism", "build", "gemma"])
    assert result.exit_code == 2
    assert "--data" in result.output


def test_members_can_be_made_one_by_one(build: Callable[..., GemmaFamily], family: GemmaFamily, tmp_path: Path) -> None:
    first = build(tmp_path / "seed-0", members=SOME)
    assert list(first.members) == ["base", "aligned", "bn"]
    with pytest.raises(CheckpointError, match="safety"):
        load_gemma(tmp_path / "seed-0")
    more = build(tmp_path / "seed-0", members=(*SOME, "safety"))
    assert list(more.members) == ["base", "aligned", "safety", "bn"]
    for name, folder in more.members.items():
        assert (folder / "model.safetensors").read_bytes() == (family.members[name] / "model.safetensors").read_bytes()
