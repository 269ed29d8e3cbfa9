"""Amplifying units is an edit like any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.opened import Sources
from polysafe.errors import EditError
from polysafe.methods.sparse_edit.amplify import amplification
from polysafe.methods.sparse_edit.mlp_units import mlp_projections
from tests.methods.helpers import differing, result, same_bits, state
from tests.models import tiny_model

Opener = Callable[[Mapping[str, Path]], Sources]
UNITS = torch.tensor([1, 5, 20])


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_outputs_of_the_units_are_multiplied(factor: float, opened: Opener, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model("llama", layers=2).to(torch.float32).save(tmp_path)})
    gate, up = mlp_projections(sources["model"], 1)
    edit = amplification(sources["model"], {gate: UNITS, up: torch.tensor([], dtype=torch.int64)}, factor)
    before, after = state(sources, "model"), result(edit, sources)
    assert differing(before, after) == [gate.tensor]
    others = torch.ones(24, dtype=torch.bool)
    others[UNITS] = False
    assert same_bits(after[gate.tensor][others], before[gate.tensor][others])
    torch.testing.assert_close(after[gate.tensor][UNITS], factor * before[gate.tensor][UNITS], rtol=1e-6, atol=0)


def test_biases_are_multiplied_too(opened: Opener, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model("gpt_neox", layers=2).to(torch.float32).save(tmp_path)})
    (projection,) = mlp_projections(sources["model"], 0)
    edit = amplification(sources["model"], {projection: UNITS}, 2.0)
    before, after = state(sources, "model"), result(edit, sources)
    assert projection.bias is not None
    assert differing(before, after) == sorted([projection.tensor, projection.bias])
    torch.testing.assert_close(after[projection.bias][UNITS], 2 * before[projection.bias][UNITS])


def test_the_second_half_of_a_fused_tensor(opened: Opener, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model("phi3", layers=2).to(torch.float32).save(tmp_path)})
    gate, up = mlp_projections(sources["model"], 0)
    after = result(amplification(sources["model"], {up: UNITS}, 2.0), sources)[up.tensor]
    torch.testing.assert_close(after[24 + UNITS], 2 * state(sources, "model")[up.tensor][24 + UNITS])
    with pytest.raises(EditError, match="two of the projections"):
        amplification(sources["model"], {gate: UNITS, up: UNITS}, 2.0)


def test_no_unit_no_edit(opened: Opener, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model("llama", layers=2).save(tmp_path)})
    gate, _ = mlp_projections(sources["model"], 0)
    with pytest.raises(EditError, match="no unit"):
        amplification(sources["model"], {gate: UNITS[:0]}, 2.0)
