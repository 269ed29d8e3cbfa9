"""The tiny checkpoints that all tests are built on are what transformers reads and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.models import FAMILIES, bump, read_weights, tiny_llama, tiny_model, trio


@pytest.mark.filterwarnings("ignore")  # what transformers warns about is not what is tested
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_every_tensor(tmp_path: Path, family: str) -> None:
    transformers = pytest.importorskip("transformers")
    model = tiny_model(family, layers=2)
    folder = model.save(tmp_path / "model")
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    loaded.save_pretrained(tmp_path / "again")
    again = read_weights(tmp_path / "again")
    assert again.keys() == model.tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.tensors.items())
    assert loaded(torch.tensor([[3, 4]])).logits.shape == (1, 2, 40)


@pytest.mark.filterwarnings("ignore")
def test_transformers_loads_the_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_llama(tmp_path))
    assert tokenizer("w3 w39")["input_ids"] == [3, 39]


def test_updates_have_exactly_the_asked_size() -> None:
    base = tiny_model(dtype=torch.float32)
    moved = base.updated(1, bump(4))
    for name, tensor in base.tensors.items():
        relative = (moved.tensors[name] - tensor).norm() / tensor.norm()
        assert float(relative) == pytest.approx(bump(4)(name), rel=1e-4)


def test_the_same_seed_gives_the_same_checkpoint(tmp_path: Path) -> None:
    first, second, other = (tiny_llama(tmp_path / str(i), seed=seed) for i, seed in enumerate((3, 3, 4)))
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    whole = read_weights(trio(tmp_path / "a").safety)
    folder = trio(tmp_path / "b", shards=3).safety
    parts = read_weights(folder)
    assert len(list(folder.glob("*.safetensors"))) == 3
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys()
