"""LoRA adapters are read as the model that merging them gives."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from polysafe.checkpoint import adapter_config
from polysafe.checkpoint.lora import AdaptedReader, open_adapter, open_reader
from polysafe.checkpoint.source import open_checkpoint
from polysafe.confined import Confined
from polysafe.errors import CheckpointError, MismatchError, RecipeError
from polysafe.recipe.recipe import make_recipe
from polysafe.workflows.run import run_recipe
from tests.models import TinyModel, read_weights, tiny_model, trio, write_adapter

RANK, ALPHA = 3, 6.0


def update(adapter: Path, tensor: str, scale: float) -> torch.Tensor | None:
    """The dense update that an adapter stands for."""
    factors = load_file(adapter / "adapter_model.safetensors")
    name = f"base_model.model.{tensor.removesuffix('.weight')}"
    if f"{name}.lora_A.weight" not in factors:
        return None
    a, b = (factors[f"{name}.lora_{side}.weight"].to(torch.float64) for side in "AB")
    return scale * (b @ a)


def merged(model: TinyModel, adapter: Path, scale: float = ALPHA / RANK) -> TinyModel:
    tensors = {}
    for name, tensor in model.tensors.items():
        delta = update(adapter, name, scale)
        tensors[name] = tensor if delta is None else (tensor.to(torch.float64) + delta).to(tensor.dtype)
    return TinyModel(tensors, model.config)


def configure(adapter: Path, **settings: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_model().save(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "lora", tiny_model())


@pytest.mark.parametrize(("settings", "scale"), [({}, ALPHA / RANK), ({"use_rslora": True}, ALPHA / math.sqrt(RANK))])
def test_rows_are_those_of_the_merged_model(base: Path, adapter: Path, settings: dict[str, Any], scale: float) -> None:
    configure(adapter, **settings)
    with open_reader(open_adapter(adapter, open_checkpoint(base))) as reader:
        assert reader.names() == tuple(open_checkpoint(base).tensors)
        for name, expected in merged(tiny_model(), adapter, scale).tensors.items():
            spec = reader.spec(name)
            middle = spec.rows // 2
            halves = [reader.rows(name, 0, middle), reader.rows(name, middle, spec.rows)]
            assert torch.equal(reader.whole(name), expected)
            assert torch.equal(torch.cat(halves).view(spec.shape), expected)


def test_a_merge_that_the_storage_type_does_not_hold_is_refused(tmp_path: Path, adapter: Path) -> None:
    base = tiny_model(dtype=torch.float16).save(tmp_path / "half")
    configure(adapter, lora_alpha=1e9)
    with open_reader(open_adapter(adapter, open_checkpoint(base))) as reader:
        with pytest.raises(CheckpointError, match=r"up_proj.weight' with the adapter merged would hold -?\d+.*F16"):
            reader.whole("model.layers.0.mlp.up_proj.weight")
        assert reader.whole("model.norm.weight").isfinite().all()


def test_a_pattern_gives_single_modules_another_alpha(base: Path, adapter: Path) -> None:
    configure(adapter, alpha_pattern={"up_proj": 9.0})
    scales = open_adapter(adapter, open_checkpoint(base)).scales
    assert {scale for name, scale in scales.items() if "up_proj" in name} == {9.0 / RANK}
    assert {scale for name, scale in scales.items() if "up_proj" not in name} == {ALPHA / RANK}


def test_norms_from_factors_are_those_of_the_dense_products(base: Path, adapter: Path) -> None:
    with AdaptedReader(open_adapter(adapter, open_checkpoint(base))) as reader:
        for name in reader.names():
            delta = update(adapter, name, ALPHA / RANK)
            dense = 0.0 if delta is None else torch.linalg.matrix_norm(delta).item()
            assert reader.update_norm(name) == pytest.approx(dense, rel=1e-6)


@given(rank=st.integers(1, 12), seed=st.integers(0, 2**16))
def test_the_norm_identity_holds_for_any_rank(rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, 24, generator=generator, dtype=torch.float64)
    b = torch.randn(16, rank, generator=generator, dtype=torch.float64)
    dense = torch.linalg.matrix_norm(b @ a).item()
    assert math.sqrt(float(((b.T @ b) * (a @ a.T)).sum())) == pytest.approx(dense, rel=1e-6)


def test_a_band_comes_from_an_adapter_as_from_the_merged_model(tmp_path: Path, adapter: Path) -> None:
    models = trio(tmp_path / "trio")
    dense = merged(tiny_model(), adapter).save(tmp_path / "dense")
    outputs = []
    for name, safety in (
        ("from_adapter", {"path": str(adapter), "adapter_of": "base"}),
        ("from_merged", {"path": str(dense)}),
    ):
        recipe = make_recipe(
            {
                "polysafe": 1,
                "sources": {
                    "base": {"path": str(models.base)},
                    "sw": {"path": str(models.language)},
                    "safety": safety,
                },
                "edits": [{"method": "band_swap", "safety": "safety", "language": "sw", "bottom": 1, "top": 1}],
                "output": {"path": str(tmp_path / name)},
            }
        )
        outputs.append(read_weights(run_recipe(recipe).output))
    language = read_weights(models.language)
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in language)
    assert any(not torch.equal(outputs[0][name], language[name]) for name in language)


@pytest.mark.hostile("adapter")
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "more than a low-rank update"),
        ({"bias": "all"}, "more than a low-rank update"),
        ({"modules_to_save": ["lm_head"]}, "more than a low-rank update"),
        ({"peft_type": "IA3"}, "does not describe a LoRA adapter"),
        ({"layer_replication": [[0, 2], [1, 4]]}, r"more than a low-rank update \(layer_replication\)"),
        ({"trainable_token_indices": [5]}, "more than a low-rank update"),
        ({"alora_invocation_tokens": [1, 2]}, "more than a low-rank update"),
        ({"init_lora_weights": "pissa"}, "was begun with 'pissa', which changes the base"),
        ({"init_lora_weights": "pissa_niter_16"}, "was begun with 'pissa_niter_16'"),
        ({"init_lora_weights": "olora"}, "was begun with 'olora'"),
        ({"init_lora_weights": "loftq"}, "was begun with 'loftq'"),
        ({"init_lora_weights": {"a": 1}}, "was begun with"),
        ({"use_rslora": "false"}, "says use_rslora: 'false', neither true nor false"),
        ({"use_rslora": 1}, "says use_rslora: 1, neither"),
        ({"use_dora": "no"}, "says use_dora: 'no', neither"),
        ({"r": "3"}, "rank '3'"),
        ({"r": True}, "rank True"),
        ({"r": 0}, "rank 0"),
        ({"r": 10**250}, "states rank"),
        ({"lora_alpha": True}, "alpha True"),
        ({"lora_alpha": float("nan")}, "alpha nan"),
        ({"lora_alpha": 1e308}, r"alpha 1e\+308"),
        ({"lora_alpha": 10**400}, "a number has 401 digits"),
        ({"alpha_pattern": {"up_proj": "9"}}, "alpha '9'"),
        ({"rank_pattern": {"up_proj": 3.0}}, "rank 3.0"),
        ({"rank_pattern": {"up_proj": 4}}, r"states rank 4 for 'model\.layers\.0\.mlp\.up_proj\.weight'.* have rank 3"),
        ({"r": 8}, "states rank 8 for .* whose factors have rank 3"),
    ],
)
def test_other_adapters_are_refused(base: Path, adapter: Path, settings: dict[str, Any], words: str) -> None:
    configure(adapter, **settings)
    with pytest.raises((CheckpointError, MismatchError), match=words):
        open_adapter(adapter, open_checkpoint(base))


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_a_beginning_that_leaves_the_base_alone_is_read(base: Path, adapter: Path, start: object) -> None:
    configure(adapter, init_lora_weights=start, use_rslora=None, layer_replication=None)
    assert not open_adapter(adapter, open_checkpoint(base)).notes[1:]


@pytest.mark.hostile("adapter")
def test_a_key_that_nobody_knows_is_told(base: Path, adapter: Path) -> None:
    configure(adapter, use_quantum=True)
    assert open_adapter(adapter, open_checkpoint(base)).notes[-1] == (
        "adapter_config.json sets use_quantum, of which polysafe knows nothing"
    )


@pytest.mark.hostile("adapter")
@pytest.mark.parametrize("other", ["{}.lora_A.default.weight", "base_model.model.{}.lora_A.default.weight"])
def test_two_adapters_in_one_file_are_refused(base: Path, adapter: Path, other: str) -> None:
    file = adapter / "adapter_model.safetensors"
    factors = load_file(file)
    factors[other.format("model.layers.0.self_attn.q_proj")] = torch.ones(RANK, 16)
    save_file(factors, file)
    with pytest.raises(CheckpointError, match="two tensors stand for factor A"):
        open_adapter(adapter, open_checkpoint(base))


@pytest.mark.hostile("adapter")
@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.float8_e4m3fn])
def test_factors_that_are_no_real_numbers_are_refused(base: Path, adapter: Path, dtype: torch.dtype) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file({name: factor.to(dtype) for name, factor in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match="no real numbers"):
        open_adapter(adapter, open_checkpoint(base))


@pytest.mark.hostile("adapter")
@pytest.mark.parametrize("key", ["alpha_pattern", "rank_pattern"])
def test_an_expression_that_takes_for_ever_is_ended(
    base: Path, adapter: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurried = Confined("polysafe.checkpoint.patterns:first_matches", "a regular expression", seconds=0.2)
    monkeypatch.setattr(adapter_config, "_MATCHES", hurried)
    configure(adapter, **{key: {"(([a-z_.0-9])+)+!": RANK}})
    with pytest.raises(CheckpointError, match="a regular expression does not end"):
        open_adapter(adapter, open_checkpoint(base))
    hurried.close()


def test_expressions_choose_as_those_of_peft_do(base: Path, adapter: Path) -> None:
    from peft.utils.other import get_pattern_key

    patterns = {r"layers\.[02]\..*": 1, "^model.layers.1.mlp.up_proj": 2, "_proj": 3, "mlp.down_proj": 4, "up_proj": 5}
    configure(adapter, alpha_pattern=patterns)
    scales = open_adapter(adapter, open_checkpoint(base)).scales
    for tensor, scale in scales.items():
        key = get_pattern_key(list(patterns), tensor.removesuffix(".weight"))
        assert scale == patterns.get(key, ALPHA) / RANK


@pytest.mark.hostile("adapter")
def test_a_config_of_absurd_size_is_not_read(base: Path, adapter: Path) -> None:
    os.truncate(adapter / "adapter_config.json", 2**36)
    with pytest.raises(CheckpointError, match="is larger than"):
        open_adapter(adapter, open_checkpoint(base))


@pytest.mark.hostile("adapter")
def test_an_adapter_of_another_model_is_refused(tmp_path: Path, base: Path) -> None:
    deeper = write_adapter(tmp_path / "deeper", tiny_model(layers=6))
    with pytest.raises(MismatchError, match=r"do not fit 'model\.layers\.4"):
        open_adapter(deeper, open_checkpoint(base))


@pytest.mark.hostile("adapter")
def test_half_a_pair_and_foreign_tensors_are_refused(base: Path, adapter: Path) -> None:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{module}.lora_A.weight": torch.ones(2, 16)}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="only one of the two factors"):
        open_adapter(adapter, open_checkpoint(base))
    save_file({f"{module}.weight": torch.ones(2, 16)}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="is no LoRA factor"):
        open_adapter(adapter, open_checkpoint(base))


def test_a_recipe_must_say_what_an_adapter_adapts(tmp_path: Path, base: Path, adapter: Path) -> None:
    with pytest.raises(CheckpointError, match="adapter_of"):
        open_checkpoint(adapter)
    with pytest.raises(RecipeError, match="no source is called 'bass'"):
        make_recipe(
            {
                "polysafe": 1,
                "sources": {"base": {"path": str(base)}, "a": {"path": str(adapter), "adapter_of": "bass"}},
                "edits": [{"method": "soup", "weights": {"base": 0.5, "a": 0.5}}],
                "output": {"path": str(tmp_path / "out")},
            }
        )
