from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polysafe.checkpoint.header import TensorSpec, read_header, tensor_bytes
from polysafe.checkpoint.layout import Layout, plan_layout
from polysafe.checkpoint.source import INDEX, SINGLE, open_checkpoint
from tests.models import tiny_llama


def spec(name: str, elements: int) -> TensorSpec:
    return TensorSpec(name, "BF16", (elements,), Path("f"), 0, tensor_bytes("BF16", (elements,)))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 200))
def test_shards_keep_order_and_size(elements: list[int], shard_size: int) -> None:
    specs = [spec(f"t{i}", n) for i, n in enumerate(elements)]
    layout = plan_layout(specs, shard_size)
    assert [s for shard in layout.shards for s in shard.tensors] == specs
    for shard in layout.shards:
        assert len(shard.tensors) == 1 or sum(s.nbytes for s in shard.tensors) <= shard_size
        assert shard.size == len(shard.header) + sum(s.nbytes for s in shard.tensors)
    assert layout.size == sum(shard.size for shard in layout.shards)


def test_one_shard_has_no_index() -> None:
    layout = plan_layout([spec("a", 1), spec("b", 1)], 4)
    assert [shard.name for shard in layout.shards] == [SINGLE]
    assert layout.index() is None


def test_names_and_index_of_several(tmp_path: Path) -> None:
    layout = plan_layout([spec("b", 2), spec("a", 2), spec("c", 2)], 8)
    assert [shard.name for shard in layout.shards] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    index = layout.index()
    assert index is not None
    assert index[0] == INDEX
    assert json.loads(index[1]) == {
        "metadata": {"total_size": 12},
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors",
        },
    }


def write(layout: Layout, folder: Path) -> None:
    folder.mkdir()
    for shard in layout.shards:
        (folder / shard.name).write_bytes(shard.header + bytes(shard.size - len(shard.header)))
    index = layout.index()
    if index is not None:
        (folder / index[0]).write_bytes(index[1])
    (folder / "config.json").write_text("{}")


@pytest.mark.parametrize("shard_size", [1, 1000, 10**9])
def test_a_layout_opens_as_a_checkpoint(shard_size: int, tmp_path: Path) -> None:
    source = open_checkpoint(tiny_llama(tmp_path / "m"))
    layout = plan_layout(list(source.tensors.values()), shard_size)
    write(layout, tmp_path / "out")
    opened = open_checkpoint(tmp_path / "out")
    assert opened.notes == ()
    assert {n: (s.dtype, s.shape) for n, s in opened.tensors.items()} == {
        n: (s.dtype, s.shape) for n, s in source.tensors.items()
    }
    for shard in layout.shards:
        assert read_header(tmp_path / "out" / shard.name).metadata == {"format": "pt"}
