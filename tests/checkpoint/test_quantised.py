"""Quantised checkpoints are recognised by config, and by tensors alone, and refused with what to use instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from polysafe.checkpoint.quantised import check_editable, quantisation
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from tests.checkpoint.quantised import LAYOUTS, save_layout

TOLD = {
    "fp8 blocks": ("fp8", None, "FP8", "polysafe import"),
    "fp8 tensors": ("compressed-tensors", None, "compressed-tensors", "polysafe import"),
    "gptq": ("gptq", 4, "GPTQ, 4 bits", "use the unquantised"),
    "awq": ("awq", 4, "AWQ, 4 bits", "use the unquantised"),
    "bitsandbytes 4": ("bitsandbytes", 4, "bitsandbytes, 4 bits", "polysafe import"),
    "bitsandbytes 8": ("bitsandbytes", 8, "bitsandbytes, 8 bits", "polysafe import"),
    "packed": ("compressed-tensors", None, "compressed-tensors", "polysafe import"),
    "mxfp4": ("mxfp4", None, "MXFP4", "polysafe import"),
}


def test_every_layout_has_its_words() -> None:
    assert set(TOLD) == set(LAYOUTS)


@pytest.mark.fault(8, "by their config")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_told_by_its_config(layout: str, tmp_path: Path) -> None:
    method, bits, label, advice = TOLD[layout]
    checkpoint = open_checkpoint(save_layout(tmp_path, layout))
    found = quantisation(checkpoint)
    assert found is not None
    assert (found.method, found.bits, found.label) == (method, bits, label)
    with pytest.raises(CheckpointError) as caught:
        check_editable(checkpoint)
    assert f"is a quantised checkpoint ({label}: config.json says {method!r})" in caught.value.problem
    assert advice in str(caught.value.remedy)


@pytest.mark.fault(8, "by types and names")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_told_by_its_tensors_alone(layout: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save_layout(tmp_path, layout, config=False))
    found = quantisation(checkpoint)
    assert found is not None
    assert found.method == ("fp8" if layout == "fp8 tensors" else TOLD[layout][0])
    assert found.told.startswith("tensor 'model.layers.0.")
    with pytest.raises(CheckpointError, match="is a quantised checkpoint"):
        check_editable(checkpoint)


@pytest.mark.parametrize(
    ("stated", "told"), [("org/original", True), (["org/original", "x/y"], True), ("no id", False), (5, False)]
)
def test_the_card_names_what_to_use_instead(stated: Any, told: bool, tmp_path: Path) -> None:
    folder = save_layout(tmp_path, "awq")
    (folder / "README.md").write_text(f"---\nbase_model: {json.dumps(stated)}\n---\n", encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        check_editable(open_checkpoint(folder))
    assert ("(org/original, as its card says)" in str(caught.value.remedy)) is told


def test_a_format_that_nobody_knows_is_refused_by_its_name(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    config = {"quantization_config": {"quant_method": "quark", "bits": 6}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"\(quark, 6 bits: config\.json says 'quark'\)"):
        check_editable(open_checkpoint(tmp_path))
