"""FP8 folders become ordinary ones: every code times its scale, and the rest as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.imported import read_imported
from polysafe.checkpoint.output import MANIFEST
from polysafe.checkpoint.quantised import check_editable
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.verify import is_whole, read_manifest
from polysafe.engine.import_quantised import import_quantised
from polysafe.errors import CheckpointError, OutputError
from tests.models import read_weights, tiny_model, write_weights

BLOCK = (5, 7)
"""No divisor of any side, so that the last blocks are cut."""


def _blocks(weight: torch.Tensor, block: tuple[int, int] = BLOCK) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales as the published programs make them: the largest number of a block becomes 448."""
    rows, columns = (-(-side // size) for side, size in zip(weight.shape, block, strict=True))
    scales = torch.empty(rows, columns)
    codes = torch.empty(weight.shape)
    for i in range(rows):
        for j in range(columns):
            part = (slice(i * block[0], (i + 1) * block[0]), slice(j * block[1], (j + 1) * block[1]))
            scales[i, j] = weight[part].float().abs().max() / 448
            codes[part] = weight[part].float() / scales[i, j]
    return codes.to(torch.float8_e4m3fn), scales


def _per(weight: torch.Tensor, dim: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    size = weight.float().abs()
    scale = (size.max() if dim is None else size.amax(dim, keepdim=True)) / 448
    return (weight.float() / scale).to(torch.float8_e4m3fn), scale


def _save(folder: Path, how: str, **config: Any) -> tuple[Path, dict[str, torch.Tensor]]:
    """A tiny model with FP8 projections, and what its numbers are by the formula."""
    model = tiny_model(layers=2)
    tensors, expected = {}, dict(model.tensors)
    for name, tensor in model.tensors.items():
        if not name.endswith("proj.weight"):
            tensors[name] = tensor
            continue
        if how == "blocks":
            codes, scales = _blocks(tensor)
            height, width = BLOCK
            spread = scales.repeat_interleave(height, 0).repeat_interleave(width, 1)
            wide = spread[: tensor.shape[0], : tensor.shape[1]]
            tensors[f"{name}_scale_inv"] = scales
        else:
            codes, scales = _per(tensor, None if how == "tensor" else 1)
            wide = scales
            tensors[f"{name}_scale"] = scales
        tensors[name] = codes
        expected[name] = (codes.float() * wide).to(torch.bfloat16)
    quantised = {"quant_method": "fp8", **({"weight_block_size": list(BLOCK)} if how == "blocks" else {})}
    model.save(folder)
    settings = model.config | {"quantization_config": quantised, **config}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    write_weights(folder, tensors)
    return folder, expected


@pytest.mark.parametrize("how", ["blocks", "tensor", "row"])
def test_numbers_are_codes_times_scales(how: str, tmp_path: Path) -> None:
    folder, expected = _save(tmp_path / "fp8", how)
    result = import_quantised(folder, tmp_path / "out", shard_size=6_000)
    found = read_weights(result.output)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    checkpoint = open_checkpoint(result.output)
    check_editable(checkpoint)
    assert len(checkpoint.files) > 1
    assert "quantization_config" not in checkpoint.config
    assert checkpoint.config["dtype"] == "bfloat16"
    assert is_whole(result.output, read_manifest(result.output))
    assert (result.output / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_blocks_of_rows_are_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, expected = _save(tmp_path / "fp8", "blocks")
    monkeypatch.setattr(
        "polysafe.checkpoint.quantised.fp8.row_blocks", lambda spec: [(i, i + 1) for i in range(spec.rows)]
    )
    found = read_weights(import_quantised(folder, tmp_path / "out").output)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_what_was_lost_is_told(tmp_path: Path) -> None:
    folder, _ = _save(tmp_path / "model-fp8", "row")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (folder / "LICENSE.txt").write_text("terms", encoding="utf-8")
    output = import_quantised(folder, tmp_path / "out", dtype="F32").output
    (record,) = read_imported(output)
    assert (record.format, record.dtype, record.licence, record.terms) == ("fp8", "F32", "mit", ("LICENSE.txt",))
    assert record.types == {"F8_E4M3": 14, "BF16": 7}
    said = "the weights were quantised (F8_E4M3) before; dequantised from model-fp8"
    assert record.sentence == said
    assert said in open_checkpoint(output).notes
    assert "quantised before (F8_E4M3)" in (output / "README.md").read_text(encoding="utf-8")
    assert (output / "LICENSE.txt").read_text(encoding="utf-8") == "terms"
    assert read_weights(output)["model.layers.0.mlp.up_proj.weight"].dtype == torch.float32


def test_an_interrupted_import_goes_on(tmp_path: Path) -> None:
    folder, expected = _save(tmp_path / "fp8", "blocks")

    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "writing" and done > 5_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_quantised(folder, tmp_path / "out", shard_size=4_000, progress=stop)
    assert not (tmp_path / "out" / MANIFEST).exists()
    result = import_quantised(folder, tmp_path / "out", shard_size=4_000)
    assert result.resumed
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_weights(result.output).items())
    with pytest.raises(OutputError, match="already holds a finished output"):
        import_quantised(folder, tmp_path / "out")


def _changed(folder: Path, change: Any) -> Path:
    tensors = read_weights(folder)
    change(tensors)
    write_weights(folder, tensors)
    return folder


UP = "model.layers.0.mlp.up_proj.weight"
BROKEN = {
    "no scale": (lambda t: t.pop(f"{UP}_scale_inv"), "is FP8 and has no scale beside it"),
    "scale of another shape": (
        lambda t: t.update({f"{UP}_scale_inv": torch.ones(2, 2)}),
        r"of shape \[2, 2\] does not fit",
    ),
    "scale that is none": (lambda t: t[f"{UP}_scale_inv"].fill_(float("nan")), "holds NaN, or numbers"),
    "another format beside": (
        lambda t: t.update({"model.layers.0.x.qweight": torch.zeros(2, 2, dtype=torch.int32)}),
        "which is no FP8 weight",
    ),
    "stacked": (
        lambda t: t.update({UP: t[UP].reshape(2, 12, 16), f"{UP}_scale_inv": torch.ones(1)}),
        "is FP8 and no matrix",
    ),
}


@pytest.mark.hostile("folder")
@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_dequantised_is_refused(case: str, tmp_path: Path) -> None:
    change, told = BROKEN[case]
    folder = _changed(_save(tmp_path / "fp8", "blocks")[0], change)
    with pytest.raises(CheckpointError, match=told):
        import_quantised(folder, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    plain = tiny_model(layers=1).save(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="is not quantised: it can be used as it is"):
        import_quantised(plain, tmp_path / "out")


@pytest.mark.parametrize(("method", "label"), [("awq", "AWQ"), ("gptq", "GPTQ")])
def test_formats_that_are_not_dequantised_are_refused_with_advice(method: str, label: str, tmp_path: Path) -> None:
    plain = tiny_model(layers=1).save(tmp_path / "plain")
    config = json.loads((plain / "config.json").read_text(encoding="utf-8"))
    (plain / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    (plain / "README.md").write_text("---\nbase_model: org/original\n---\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"is quantised as {label}, which is not dequantised here") as caught:
        import_quantised(plain, tmp_path / "out")
    assert "unquantised bfloat16, float16 or float32 release of this model (org/original" in str(caught.value.remedy)


def test_scales_of_activations_are_left_out(tmp_path: Path) -> None:
    folder, expected = _save(tmp_path / "fp8", "tensor")
    scales = {
        "model.layers.0.mlp.up_proj.input_scale": torch.ones(1),
        "model.layers.0.self_attn.k_scale": torch.ones(1),
    }
    result = import_quantised(_changed(folder, lambda tensors: tensors.update(scales)), tmp_path / "out")
    assert read_weights(result.output).keys() == expected.keys()
    assert result.record.notes == ("2 scales of activations are left out: ordinary weights need none",)
