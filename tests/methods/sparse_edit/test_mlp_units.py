"""Where units are stored, told for every family, and their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.opened import Sources
from polysafe.errors import ArchitectureError
from polysafe.methods.sparse_edit.mlp_units import mlp_projections
from tests.methods.helpers import state
from tests.models import tiny_model

Opener = Callable[[Mapping[str, Path]], Sources]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", [("gate", "gate_proj", 0), ("up", "up_proj", 0)]),
        ("phi3", [("gate", "gate_up_proj", 0), ("up", "gate_up_proj", 24)]),
        ("gpt_neox", [("fc_in", "dense_h_to_4h", 0)]),
    ],
)
def test_projections_of_a_layer(
    family: str, expected: list[tuple[str, str, int]], opened: Opener, tmp_path: Path
) -> None:
    sources = opened({"model": tiny_model(family, layers=2).save(tmp_path)})
    found = mlp_projections(sources["model"], 1)
    assert [(part.name, part.tensor.split(".")[-2], part.first) for part in found] == expected
    inputs = torch.randn(5, 16, dtype=torch.float64)
    for part in found:
        assert part.units == 24
        stored = state(sources, "model")
        rows = slice(part.first, part.first + part.units)
        bias = 0.0 if part.bias is None else stored[part.bias][rows].to(torch.float64)
        outputs = inputs @ stored[part.tensor][rows].to(torch.float64).T + bias
        torch.testing.assert_close(part.outputs(sources["model"].reader, inputs), outputs)
    assert (found[0].bias is not None) == (family == "gpt_neox")


def test_one_side_alone(opened: Opener, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model("phi3", layers=2).save(tmp_path)})
    assert [part.name for part in mlp_projections(sources["model"], 0, ("up",))] == ["up"]


@pytest.mark.parametrize(
    ("family", "layer", "problem"),
    [
        ("mixtral", 0, "mixture of experts"),
        ("gpt_oss", 0, "mixture of experts"),
        ("gpt2", 0, "input × output"),
        ("llama", 2, "no layer 2; the model has layers 0 … 1"),
    ],
)
def test_what_cannot_be_edited_is_told(family: str, layer: int, problem: str, opened: Opener, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model(family, layers=2).save(tmp_path)})
    with pytest.raises(ArchitectureError, match=problem):
        mlp_projections(sources["model"], layer)
