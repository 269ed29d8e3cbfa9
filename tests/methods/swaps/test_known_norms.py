"""Norms of experts that have not changed are not read again; whatever changed is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from polysafe.checkpoint.lora import open_adapter, open_reader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import SINGLE, Checkpoint, open_checkpoint
from polysafe.files import memory
from polysafe.files.memory import cache_directory
from polysafe.methods.scores import Ratios, relative_update_norms, scored_tensors
from tests.models import TinyModel, tiny_model, trio, write_adapter


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYSAFE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "TICK", -1e6)  # files of tests were made a moment ago


def read(paths: dict[str, Path], *experts: str, adapter: bool = False, biases: bool = True) -> tuple[Ratios, int]:
    """The norms of the last expert, and how many bytes of all models were read for them."""
    with ExitStack() as stack:
        base = open_checkpoint(paths["base"])

        def source(name: str, checkpoint: Checkpoint) -> Source:
            return Source(name, checkpoint, classify(checkpoint), stack.enter_context(open_reader(checkpoint)))

        sources = [source("base", base)]
        for name in experts:
            is_on = adapter and name == experts[-1]
            sources.append(source(name, open_adapter(paths[name], base) if is_on else open_checkpoint(paths[name])))
        scored = scored_tensors(sources[0].architecture, biases=biases)
        norms = relative_update_norms(sources[0], sources[1:], scored)[experts[-1]]
        readers = [each.reader for each in sources if isinstance(each.reader, CheckpointReader)]
        return norms, sum(reader.bytes_read for reader in readers)


def test_a_second_time_nothing_is_read(tmp_path: Path) -> None:
    paths = trio(tmp_path, "llama", layers=2).paths
    first, bytes_read = read(paths, "safety", "sw")
    assert bytes_read > 0
    assert read(paths, "safety", "sw") == (first, 0)
    assert read(paths, "sw") == (first, 0)


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    paths = trio(tmp_path, "llama", layers=2).paths
    _, alone = read(paths, "sw")
    _, both = read(paths, "safety", "sw")
    assert both == alone  # base and safety expert; the other is known


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    paths = trio(tmp_path, "llama", layers=2).paths
    before, bytes_read = read(paths, "sw")
    weights = load_file(paths["sw"] / SINGLE)
    weights["model.layers.0.mlp.up_proj.weight"] *= 2
    save_file(weights, paths["sw"] / SINGLE)
    after, again = read(paths, "sw")
    assert again == bytes_read
    assert after != before


def test_a_file_that_was_changed_a_moment_ago_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "TICK", 3600.0)
    paths = trio(tmp_path, "llama", layers=1).paths
    _, bytes_read = read(paths, "sw")
    assert read(paths, "sw")[1] == bytes_read > 0


def test_it_is_read_again_where_that_is_wanted(tmp_path: Path) -> None:
    paths = trio(tmp_path, "llama", layers=1).paths
    first, bytes_read = read(paths, "sw")
    with memory.reading_again():
        assert read(paths, "sw") == (first, bytes_read)


def test_factors_of_an_adapter_count_though_its_weights_are_the_same(tmp_path: Path) -> None:
    base = tiny_model("llama", layers=1)
    paths = {"base": base.save(tmp_path / "base"), "sw": tmp_path / "adapter"}
    write_adapter(paths["sw"], base, alpha=8)
    first, _ = read(paths, "sw", adapter=True)
    config = json.loads((paths["sw"] / "adapter_config.json").read_text())
    (paths["sw"] / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}))
    second, _ = read(paths, "sw", adapter=True)
    assert second == {name: pytest.approx((2 * ratio,)) for name, (ratio,) in first.items()}


@pytest.mark.parametrize("damage", ["{", '{"key": 1}', "null", "[]"])
def test_a_damaged_memory_promises_nothing(tmp_path: Path, damage: str) -> None:
    paths = trio(tmp_path, "llama", layers=1).paths
    first, bytes_read = read(paths, "sw")
    for file in (cache_directory() / "norms").iterdir():
        file.write_text(damage)
    assert read(paths, "sw") == (first, bytes_read)


@pytest.mark.parametrize("value", [None, "0.1", [], [0.1, 0.2], ["0.1"], [True, 1], [None]])
def test_a_number_that_is_none_is_read_again(tmp_path: Path, value: object) -> None:
    paths = trio(tmp_path, "llama", layers=1).paths
    first, bytes_read = read(paths, "sw")
    for file in (cache_directory() / "norms").iterdir():
        record = json.loads(file.read_text())
        record["value"][next(iter(record["value"]))] = value
        file.write_text(json.dumps(record))
    assert read(paths, "sw") == (first, bytes_read)


def test_more_tensors_than_were_kept_are_read(tmp_path: Path) -> None:
    base = tiny_model("qwen2", layers=1)
    expert = TinyModel({name: tensor.clone() for name, tensor in base.tensors.items()}, base.config)
    paths = {"base": base.save(tmp_path / "b"), "sw": expert.save(tmp_path / "e")}
    few, _ = read(paths, "sw", biases=False)
    many, bytes_read = read(paths, "sw")
    assert bytes_read > 0
    assert many.keys() > few.keys()
    assert read(paths, "sw", biases=False) == (few, 0)
