"""Relative update norms: exact, streamed, per expert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from polysafe.checkpoint.lora import open_adapter, open_reader
from polysafe.checkpoint.opened import Source, Sources
from polysafe.checkpoint.roles import Module, classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.files import memory
from polysafe.methods import norms
from polysafe.methods.scores import relative_update_norms, scored_tensors
from tests.methods.conftest import Opener
from tests.methods.helpers import state
from tests.models import TinyModel, bowl, bump, tiny_model, trio, write_adapter


@pytest.fixture(autouse=True)
def _read() -> Iterator[None]:
    """Norms are read off the files, not remembered."""
    with memory.reading_again():
        yield


def _ratios(sources: Sources, expert: str = "sw") -> dict[str, tuple[float, ...]]:
    scored = scored_tensors(sources["base"].architecture)
    return dict(relative_update_norms(sources["base"], [sources[expert]], scored)[expert])


def test_ratios_are_those_of_whole_float64_tensors(llama: Sources) -> None:
    base, expert = state(llama, "base"), state(llama, "sw")
    ratios = _ratios(llama)
    assert len(ratios) == 7 * 8
    for name, (ratio,) in ratios.items():
        expected = (expert[name].double() - base[name].double()).norm() / base[name].double().norm()
        assert ratio == pytest.approx(float(expected), rel=1e-7)


def test_update_of_a_zero_bias_counts_absolutely(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model("qwen2", layers=1)
    zero, small = "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.k_proj.bias"
    base.tensors[zero].zero_()
    base.tensors[small].fill_(0.25)
    expert = TinyModel({name: tensor.clone() for name, tensor in base.tensors.items()}, base.config)
    expert.tensors[zero].fill_(0.5)
    expert.tensors[small].fill_(0.5)
    ratios = _ratios(opened({"base": base.save(tmp_path / "b"), "sw": expert.save(tmp_path / "e")}))
    assert ratios[zero] == pytest.approx((0.5 * 16**0.5,))
    assert ratios[small] == pytest.approx((1.0,))
    assert ratios["model.layers.0.self_attn.v_proj.bias"] == (0.0,)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block_bytes=st.integers(1, 4096))
def test_size_of_blocks_does_not_matter(llama: Sources, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    whole = _ratios(llama)
    with monkeypatch.context() as patch:
        patch.setattr(norms, "BLOCK_BYTES", block_bytes)
        for name, ratios in _ratios(llama).items():
            assert ratios == pytest.approx(whole[name], rel=1e-12)


def test_blocks_never_cross_from_one_expert_to_the_next(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = opened(trio(tmp_path, "gpt_oss", layers=1).paths)
    whole = _ratios(sources)
    monkeypatch.setattr(norms, "BLOCK_BYTES", 7 * 32)  # seven rows of 16 bf16 columns; an expert has 24
    assert _ratios(sources) == {name: pytest.approx(ratios, rel=1e-12) for name, ratios in whole.items()}


def test_several_experts_score_as_each_alone(llama: Sources) -> None:
    scored = scored_tensors(llama["base"].architecture)
    both = relative_update_norms(llama["base"], [llama["safety"], llama["sw"]], scored)
    assert both == {name: _ratios(llama, name) for name in ("safety", "sw")}


def test_what_is_scored(tmp_path: Path, opened: Opener) -> None:
    architecture = opened(trio(tmp_path, "qwen3_moe", layers=1).paths)["base"].architecture
    everything = scored_tensors(architecture)
    assert {item.module for item in everything} == set(Module)
    assert not any("norm" in item.tensor or ".gate.weight" in item.tensor for item in everything)
    without = {item.tensor for item in scored_tensors(architecture, experts=False)}
    assert without == {item.tensor for item in everything if "experts" not in item.tensor}
    published = {item.tensor for item in scored_tensors(architecture, published=True)}
    assert published == {item.tensor for item in everything if "self_attn" in item.tensor}


@pytest.mark.fault(5, "huge numbers")
def test_large_values_do_not_overflow(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(layers=1)
    huge = TinyModel({name: tensor * 2.0**100 for name, tensor in base.tensors.items()}, base.config)
    moved = huge.updated(1, bump(1))
    ratios = _ratios(opened({"base": huge.save(tmp_path / "b"), "sw": moved.save(tmp_path / "e")}))
    name = "model.layers.0.mlp.down_proj.weight"
    assert ratios[name] == pytest.approx((bump(1)(name),), rel=0.01)


def test_float16_and_float32_experts_are_scored_in_float32(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(layers=2, dtype=torch.float32)
    moved = base.updated(2, bowl(2, size=1e-5))
    sources = opened({"base": base.save(tmp_path / "b"), "sw": moved.save(tmp_path / "e")})
    for name, (ratio,) in _ratios(sources).items():
        assert ratio == pytest.approx(bowl(2, size=1e-5)(name), rel=0.01)


def _with_adapter(folder: Path, stack: ExitStack, base: TinyModel) -> Sources:
    root = open_checkpoint(base.save(folder / "base"))
    adapted = open_adapter(write_adapter(folder / "adapter", base), root)
    return {
        name: Source(name, checkpoint, classify(checkpoint), stack.enter_context(open_reader(checkpoint)))
        for name, checkpoint in {"base": root, "sw": adapted}.items()
    }


def test_adapters_are_scored_from_their_factors(tmp_path: Path) -> None:
    """Equal to the norm of the dense product, which the bf16 weights after merging only come near to."""
    base = tiny_model(layers=2)
    with ExitStack() as stack:
        sources = _with_adapter(tmp_path, stack, base)
        ratios = _ratios(sources)
    factors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(ratios) == 7 * 2
    for name, (ratio,) in ratios.items():
        a, b = (factors[f"base_model.model.{name.removesuffix('.weight')}.lora_{s}.weight"].double() for s in "AB")
        dense = (6.0 / 3) * (b @ a)
        assert ratio == pytest.approx(float(dense.norm() / base.tensors[name].double().norm()), rel=1e-6)


def test_adapter_of_another_base_is_scored_from_merged_weights(tmp_path: Path) -> None:
    base = tiny_model(layers=2)
    with ExitStack() as stack:
        sources = dict(_with_adapter(tmp_path, stack, base))
        root = open_checkpoint(base.updated(5, bump(2)).save(tmp_path / "other"))
        sources["base"] = Source("base", root, classify(root), stack.enter_context(open_reader(root)))
        ratios = _ratios(sources)
        merged, origin = state(sources, "sw"), state(sources, "base")
    for name, (ratio,) in ratios.items():
        expected = (merged[name].double() - origin[name].double()).norm() / origin[name].double().norm()
        assert ratio == pytest.approx(float(expected), rel=1e-6)
