"""MXFP4 folders and those of bitsandbytes become ordinary ones, with the numbers that their programs compute."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from polysafe.checkpoint.imported import read_imported
from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.source import open_checkpoint
from polysafe.engine.import_quantised import import_quantised
from polysafe.errors import CheckpointError
from tests.byte_level import VOCABULARY, byte_tokenizer
from tests.checkpoint.quantised import BITS, save_bitsandbytes
from tests.models import read_weights, write_weights

Change = Callable[[dict[str, torch.Tensor]], object]
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXPERTS = "model.layers.0.mlp.experts"


def gpt_oss(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny gpt-oss with experts in MXFP4, and what its numbers are as transformers computes them."""
    from transformers import AutoModelForCausalLM, GptOssConfig
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 32, "head_dim": 16, "num_hidden_layers": 2}
    config = GptOssConfig(**sizes, num_local_experts=2, num_experts_per_tok=1, dtype="bfloat16")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    numbers = read_weights(folder)
    draw = torch.Generator().manual_seed(0)
    tensors, expected = dict(numbers), dict(numbers)
    for name in [each for each in numbers if each.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8, generator=draw)
        scales = torch.randint(90, 150, blocks.shape[:-1], dtype=torch.uint8, generator=draw)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        expected[name] = convert_moe_packed_tensors(blocks, scales).contiguous()
    assert len(tensors) == len(expected) + 4
    quantised = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8")) | quantised
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_weights(folder, tensors)
    return folder, expected


def test_mxfp4_numbers_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder, expected = gpt_oss(tmp_path / "mxfp4")
    result = import_quantised(folder, tmp_path / "out", shard_size=20_000)
    found = read_weights(result.output)
    assert {name: tensor.shape for name, tensor in found.items()} == {n: t.shape for n, t in expected.items()}
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    check_editable(open_checkpoint(result.output))
    (record,) = read_imported(result.output)
    assert (record.format, record.types["U8"]) == ("mxfp4", 4)
    loaded = AutoModelForCausalLM.from_pretrained(result.output).state_dict()
    assert torch.equal(loaded[f"{EXPERTS}.down_proj"], expected[f"{EXPERTS}.down_proj"])


@pytest.mark.parametrize("how", BITS)
def test_numbers_of_bitsandbytes_are_those_of_transformers(how: str, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM

    folder = save_bitsandbytes(tmp_path / "small", how, **SIZES)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    expected = theirs.dequantize().state_dict()
    result = import_quantised(folder, tmp_path / "out", dtype="F32")
    found = read_weights(result.output)
    assert len([name for name in found if name.endswith("proj.weight")]) == 7
    for name, tensor in found.items():
        wide = tensor.to(expected[name].dtype)
        assert torch.equal(wide, expected[name].contiguous()), name
    check_editable(open_checkpoint(result.output))
    assert AutoModelForCausalLM.from_pretrained(result.output).state_dict().keys() >= found.keys()


def changed(folder: Path, change: Change) -> Path:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


UP = f"{EXPERTS}.gate_up_proj"
BROKEN: dict[str, tuple[Change, str]] = {
    "no scales": (lambda t: t.pop(f"{UP}_scales"), "has no scales beside it"),
    "groups of another size": (
        lambda t: t.update({f"{UP}_blocks": t[f"{UP}_blocks"][..., :8].contiguous()}),
        "no stack of MXFP4 groups",
    ),
    "scales of another shape": (
        lambda t: t.update({f"{UP}_scales": t[f"{UP}_scales"][:, :1].contiguous()}),
        "which does not fit",
    ),
    "a scale that is none": (lambda t: t[f"{UP}_scales"].fill_(255), "holds NaN, or numbers"),
}


@pytest.mark.hostile("folder")
@pytest.mark.parametrize("case", BROKEN)
def test_mxfp4_that_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    change, told = BROKEN[case]
    folder = changed(gpt_oss(tmp_path / "mxfp4")[0], change)
    with pytest.raises(CheckpointError, match=told):
        import_quantised(folder, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


DOWN = "model.layers.0.mlp.down_proj.weight"
STATE = f"{DOWN}.quant_state.bitsandbytes__fp4"


def said(tensors: dict[str, torch.Tensor], **entries: object) -> None:
    """Changes what the state of a weight says."""
    state = json.loads(tensors[STATE].numpy().tobytes()) | entries
    tensors[STATE] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)


LYING: dict[str, tuple[Change, str]] = {
    "a larger shape": (lambda t: said(t, shape=[128, 1 << 20]), "does not fit its codes"),
    "a shape of text": (lambda t: said(t, shape="large"), "does not fit its codes"),
    "no groups": (lambda t: said(t, blocksize=0), "does not fit its absmax"),
    "fewer groups": (lambda t: said(t, blocksize=32), "does not fit its absmax"),
    "other nested groups": (lambda t: said(t, nested_blocksize=1), "does not fit its nested_absmax"),
    "a short table": (lambda t: t.update({f"{DOWN}.quant_map": torch.ones(3)}), "does not fit its quant_map"),
    "another sort": (lambda t: said(t, quant_type="x", dtype="none"), "bitsandbytes cannot read"),
    "no state": (lambda t: t[STATE].zero_(), "is no state of a weight"),
}


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Change], Path]:
    """Makes a folder of bitsandbytes that is changed."""
    pytest.importorskip("bitsandbytes")
    honest = save_bitsandbytes(tmp_path_factory.mktemp("honest") / "small", "4 bits, twice", **SIZES)

    def make(change: Change) -> Path:
        folder = tmp_path_factory.mktemp("lying")
        for file in honest.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return changed(folder, change)

    return make


@pytest.mark.hostile("folder")
@pytest.mark.parametrize("case", LYING)
def test_a_state_that_lies_is_refused(case: str, lying: Callable[[Change], Path], tmp_path: Path) -> None:
    change, told = LYING[case]
    with pytest.raises(CheckpointError, match=told):
        import_quantised(lying(change), tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()
