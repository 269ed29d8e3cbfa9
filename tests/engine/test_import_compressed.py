"""Folders of compressed-tensors become ordinary ones with the numbers of transformers; those that lie are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.imported import read_imported
from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.source import open_checkpoint
from polysafe.engine.import_quantised import import_quantised
from polysafe.errors import CheckpointError
from polysafe.extras import missing_package
from tests.checkpoint.quantised import SCHEMES, save_compressed
from tests.engine.test_import_codes import SIZES, Change, changed
from tests.models import read_weights
from tests.real_models import needs

pytestmark = needs("compressed_tensors")

ODD: dict[str, Any] = {**SIZES, "intermediate_size": 200}
"""Rows and columns that fill neither a block of rows nor, in fewer bits, an int32."""


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")
@pytest.mark.parametrize("how", SCHEMES)
def test_numbers_are_those_of_transformers(how: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    folder = save_compressed(tmp_path / "small", how, **ODD)
    # FP8 is dequantised without the library: its products are rounded once, and the library's to the type of the scale
    for dtype in ("BF16",) if how.startswith("FP8") else ("BF16", "F16", "F32"):
        result = import_quantised(folder, tmp_path / dtype, dtype=dtype)
        found = read_weights(result.output)
        ours = found["model.layers.0.mlp.down_proj.weight"].dtype
        dequantised = CompressedTensorsConfig(run_compressed=False)
        theirs = AutoModelForCausalLM.from_pretrained(folder, quantization_config=dequantised, dtype=ours)
        expected = theirs.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor.to(ours), expected[name]) for name, tensor in found.items())
        check_editable(open_checkpoint(result.output))


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning")
@pytest.mark.parametrize(("strategy", "scales"), [("token", 0), ("tensor", 7)])
def test_what_is_quantised_while_the_model_runs_is_so_no_longer(strategy: str, scales: int, tmp_path: Path) -> None:
    """W8A8: the weights are those of transformers, and what is lost is noted."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    activations = {"num_bits": 8, "strategy": strategy, "dynamic": strategy == "token"}
    folder = save_compressed(tmp_path / "small", "bytes, rows", activations=activations, **ODD)
    result = import_quantised(folder, tmp_path / "out")
    dequantised = CompressedTensorsConfig(run_compressed=False)
    theirs = AutoModelForCausalLM.from_pretrained(folder, quantization_config=dequantised).state_dict()
    found = read_weights(result.output)
    assert found.keys() == {name for name in theirs if not name.endswith(("input_scale", "input_zero_point"))}
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.items())
    left = f"{scales} scales of activations are left out: ordinary weights need none"
    lost = "what was quantised while the model ran is so no longer (input_activations)"
    assert result.record.notes == ((left, lost) if scales else (lost,))


def test_a_cache_is_quantised_no_longer(folder: Path) -> None:
    scales = {f"model.layers.0.self_attn.{name}_scale": torch.ones(1) for name in "kv"}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["kv_cache_scheme"] = {"num_bits": 8, "type": "float"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    result = import_quantised(changed(folder, lambda tensors: tensors.update(scales)), folder.parent / "out")
    assert not scales.keys() & read_weights(result.output).keys()
    assert [note.partition(" ")[0] for note in result.record.notes] == ["2", "what"]


def test_rows_in_blocks_are_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_compressed(tmp_path / "small", "4 bits, groups, zero points", **ODD)
    whole = read_weights(import_quantised(folder, tmp_path / "whole").output)
    monkeypatch.setattr("polysafe.checkpoint.quantised.compressed.BLOCK_BYTES", 1)
    blocks = read_weights(import_quantised(folder, tmp_path / "blocks").output)
    assert all(torch.equal(whole[name], tensor) for name, tensor in blocks.items())


def test_the_record_names_format_and_library(tmp_path: Path) -> None:
    folder = save_compressed(tmp_path / "small", "4 bits, groups", **ODD)
    (record,) = read_imported(import_quantised(folder, tmp_path / "out").output)
    assert (record.format, record.types) == ("compressed-tensors", {"I32": 7, "BF16": 5})
    assert record.libraries.keys() == {"torch", "compressed_tensors"}


DOWN, UP = "model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj"
SHAPE = f"{DOWN}.weight_shape"


def put(name: str, tensor: torch.Tensor) -> Change:
    return lambda tensors: tensors.update({name: tensor})


def without(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def cut(name: str) -> Change:
    return lambda tensors: tensors.update({name: tensors[name][1:].contiguous()})


def cast(name: str, dtype: torch.dtype) -> Change:
    return lambda tensors: tensors.update({name: tensors[name].to(dtype)})


LYING: dict[str, tuple[Change, str]] = {
    "a huge shape": (
        put(SHAPE, torch.tensor([1 << 62, 1 << 62])),
        r"and has to be I32 of shape \[4611686018427387904, ",
    ),
    "a larger shape": (
        put(SHAPE, torch.tensor([128, 208])),
        r"down_proj.weight_packed' is I32 of shape \[128, 25\], and has to be I32 of shape \[128, 26\]",
    ),
    "fewer rows": (put(SHAPE, torch.tensor([64, 200])), r"and has to be I32 of shape \[64, 25\]"),
    "a negative shape": (put(SHAPE, torch.tensor([128, -8])), r"of shape \[128, -8\] is no matrix"),
    "no rows": (put(SHAPE, torch.tensor([0, 200])), r"of shape \[0, 200\] is no matrix"),
    "a shape of three": (
        put(SHAPE, torch.tensor([1, 128, 200])),
        r"weight_shape' is I64 of shape \[3\]",
    ),
    "a shape of fractions": (put(SHAPE, torch.tensor([128.0, 200.0])), r"weight_shape' is F32 of shape \[2\]"),
    "groups that do not divide": (put(SHAPE, torch.tensor([128, 199])), "groups of 8 do not divide the 199 inputs"),
    "no shape": (without(SHAPE), f"there is no tensor '{SHAPE}'"),
    "no scale": (without(f"{DOWN}.weight_scale"), f"there is no tensor '{DOWN}.weight_scale'"),
    "no zero points": (without(f"{DOWN}.weight_zero_point"), f"there is no tensor '{DOWN}.weight_zero_point'"),
    "no codes": (without(f"{DOWN}.weight_packed"), "down_proj.weight_s.*' belongs to no weight of codes"),
    "fewer codes": (cut(f"{DOWN}.weight_packed"), r"weight_packed' is I32 of shape \[127, 25\]"),
    "fewer scales": (cut(f"{DOWN}.weight_scale"), r"weight_scale' is BF16 of shape \[127, 25\], and has to be"),
    "one scale": (put(f"{DOWN}.weight_scale", torch.ones(1)), r"weight_scale' is F32 of shape \[1\], and has to be"),
    "scales of whole numbers": (cast(f"{DOWN}.weight_scale", torch.int32), "weight_scale' is I32 of shape"),
    "a scale that is none": (lambda t: t[f"{DOWN}.weight_scale"][5, 5].fill_(float("nan")), "holds NaN or infinity"),
    "an infinite scale": (lambda t: t[f"{DOWN}.weight_scale"][5, 5].fill_(float("inf")), "holds NaN or infinity"),
    "fewer zero points": (cut(f"{DOWN}.weight_zero_point"), r"weight_zero_point' is I32 of shape \[15, 25\]"),
    "zero points in bytes": (cast(f"{DOWN}.weight_zero_point", torch.int8), "weight_zero_point' is I8 of shape"),
    "codes of another type": (cast(f"{DOWN}.weight_packed", torch.int64), "weight_packed' is I64 of shape"),
    "codes and numbers": (put(f"{UP}.weight", torch.ones(200, 128)), f"'{UP}.weight' is there as codes and as numbers"),
    "another format beside": (
        put("model.layers.0.x.qweight", torch.zeros(2, 2, dtype=torch.int32)),
        "which is no weight of compressed-tensors",
    ),
    "reordered inputs": (
        put(f"{DOWN}.weight_g_idx", torch.arange(200, dtype=torch.int32) // 8),
        r"weight_g_idx' reorders inputs \(actorder\)",
    ),
    "inputs of groups that are not there": (
        put(f"{DOWN}.weight_g_idx", torch.full((200,), 1 << 30, dtype=torch.int32)),
        r"weight_g_idx' reorders inputs \(actorder\)",
    ),
    "another scale": (put(f"{DOWN}.weight_global_scale", torch.ones(1)), "global_scale' belongs to no weight of codes"),
}
"""Tensors that do not fit -> what is said. The honest folder is in groups of 8 with zero points."""

Settings = dict[str, Any]
Told = Callable[[Settings], object]


def weights(**stated: Any) -> Told:
    return lambda settings: settings["config_groups"]["group_0"]["weights"].update(stated)


def group(**stated: Any) -> Told:
    return lambda settings: settings["config_groups"]["group_0"].update(stated)


def top(**stated: Any) -> Told:
    return lambda settings: settings.update(stated)


STATED: dict[str, tuple[Told, str]] = {
    "0 bits": (weights(num_bits=0), "says num_bits 0, which"),
    "64 bits": (weights(num_bits=64), "says num_bits 64, which"),
    "3 bits": (weights(num_bits=3), "says num_bits 3, which"),
    "bits of text": (weights(num_bits="4"), "says num_bits '4', which"),
    "other bits": (weights(num_bits=8), r"and has to be I32 of shape \[128, 50\]"),
    "groups of nothing": (weights(group_size=0), "says group_size 0, which"),
    "groups of less": (weights(group_size=-1), "says group_size -1, which"),
    "groups of text": (weights(group_size=[8]), r"says group_size \[8\], which"),
    "groups that do not divide": (weights(group_size=7), "groups of 7 do not divide the 200 inputs"),
    "other groups": (weights(group_size=4), "weight_scale' is BF16 of shape"),
    "groups of rows": (weights(strategy="channel"), "says group_size 8, which"),
    "rows": (weights(strategy="channel", group_size=None), "weight_scale' is BF16 of shape"),
    "blocks": (weights(strategy="block"), "says strategy 'block', which"),
    "a strategy of two": (weights(strategy=["group"]), "says strategy"),
    "symmetric": (weights(symmetric=True), "weight_zero_point' belongs to no weight of codes"),
    "symmetric in words": (weights(symmetric="no"), "says symmetric 'no', which"),
    "floats": (weights(type="float"), "says type 'float', which"),
    "an order of inputs": (weights(actorder="group"), "says actorder 'group', which"),
    "no scheme of weights": (group(weights=None), "does not say how weights are quantised"),
    "an unknown format": (group(format="zip"), "says format 'zip', which"),
    "a format for numbers": (group(format="dense"), "says format 'dense', which"),
    "sparse in the format": (group(format="marlin-24"), "says format 'marlin-24', which"),
    "unpacked": (group(format="int-quantized"), "belongs to no weight of codes"),
    "sparse": (top(sparsity_config={"format": "sparse-24-bitmask"}), r"weights are sparse \(sparsity_config\)"),
    "sparse in words": (top(sparsity_config="2:4"), r"weights are sparse \(sparsity_config\)"),
    "pruned experts": (top(moe_sparsity_config={"method": "prune"}), "experts are pruned"),
    "rotated": (top(transform_config={"config_groups": {"u": {}}}), "weights are rotated"),
    "two schemes": (lambda s: s["config_groups"].update(group_1={"weights": {"num_bits": 8}}), "has 2 schemes"),
    "no groups": (top(config_groups={}), r"does not say how weights are quantised \(config_groups\)"),
    "a preset": (top(config_groups={"W4A16": ["Linear"]}), "does not say how weights are quantised"),
    "groups in a list": (top(config_groups=[1]), "does not say how weights are quantised"),
}
"""What a config says -> what is said of it."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_compressed(tmp_path_factory.mktemp("honest") / "small", "4 bits, groups, zero points", **ODD)


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    copy = tmp_path / "lying"
    copy.mkdir()
    for file in honest.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


@pytest.fixture
def unseen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the library is asked for, which has to stay nothing."""
    from compressed_tensors.compressors import BaseCompressor

    asked: list[str] = []
    monkeypatch.setattr(BaseCompressor, "get_value_from_registry", asked.append)
    return asked


def refused(folder: Path, told: str, unseen: list[str]) -> None:
    with pytest.raises(CheckpointError, match=told) as caught:
        import_quantised(folder, folder.parent / "out")
    assert caught.value.where == folder
    assert "use the unquantised release of this model" in str(caught.value.remedy)
    assert not unseen
    assert not (folder.parent / "out" / MANIFEST).exists()


@pytest.mark.hostile("folder")
@pytest.mark.parametrize("case", LYING)
def test_tensors_that_do_not_fit_are_refused(case: str, folder: Path, unseen: list[str]) -> None:
    change, told = LYING[case]
    refused(changed(folder, change), told, unseen)


@pytest.mark.hostile("config")
@pytest.mark.parametrize("case", STATED)
def test_a_config_that_lies_is_refused(case: str, folder: Path, unseen: list[str]) -> None:
    change, told = STATED[case]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(folder, told, unseen)


def test_a_config_that_was_lost_is_told(folder: Path, unseen: list[str]) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(folder, "config.json does not say how weights are quantised", unseen)


def test_scales_in_fp8_do_not_make_it_fp8(folder: Path, unseen: list[str]) -> None:
    changed(folder, cast(f"{DOWN}.weight_scale", torch.float8_e4m3fn))
    refused(folder, f"'{DOWN}.weight_scale' is F8_E4M3 of shape", unseen)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["config_groups"]["group_0"]["format"] = "nvfp4-pack-quantized"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    refused(folder, "says format 'nvfp4-pack-quantized', which is not dequantised here", unseen)


def test_dense_weights_are_not_sparse(folder: Path) -> None:
    """Earlier versions of llm-compressor say of weights that are all there that they are."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"]["sparsity_config"] = {"format": "dense", "sparsity_structure": "unstructured"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert f"{DOWN}.weight" in read_weights(import_quantised(folder, folder.parent / "out").output)


def test_without_the_library_its_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "compressed_tensors", None)
    with pytest.raises(ImportError) as caught:
        import_quantised(folder, folder.parent / "out")
    told = missing_package(caught.value)
    assert told is not None
    assert told.problem == "this needs the package compressed_tensors, which is not installed"


@pytest.mark.parametrize("raised", [RuntimeError("shape"), AttributeError("renamed")])
def test_what_the_library_raises_is_told(raised: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressed_tensors.compressors import BaseCompressor

    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr(BaseCompressor, "get_value_from_registry", fail)
    with pytest.raises(CheckpointError, match=f"compressed-tensors cannot read '{DOWN}.weight_packed'"):
        import_quantised(folder, folder.parent / "out")
