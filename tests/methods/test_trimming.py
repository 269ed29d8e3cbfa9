"""The trimming threshold against sorting whole task vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import Architecture
from polysafe.checkpoint.source import open_checkpoint
from polysafe.methods.base import Source
from polysafe.methods.trimming import trimming_threshold

_NUMBERS = st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 1.0, -1.0, 0.5, 2**-30, -(2**-140), 3e38]))


def _source(name: str, folder: Path, tensors: dict[str, torch.Tensor]) -> Source:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    checkpoint = open_checkpoint(folder)
    nothing = Architecture("", 0, {}, False, None, None)
    return Source(name, checkpoint, nothing, CheckpointReader(checkpoint))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(_NUMBERS, min_size=1, max_size=60),
    density=st.floats(0.01, 1.0),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_keeps_what_sorting_keeps(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], density: float, dtype: torch.dtype
) -> None:
    root = tmp_path_factory.mktemp("t")
    expert = torch.tensor(values, dtype=torch.float32).to(dtype)
    base = torch.linspace(-1, 1, len(values)).to(dtype)
    sources = [_source(n, root / n, {"w": t}) for n, t in (("base", base), ("expert", expert))]
    threshold = trimming_threshold(sources[0], sources[1], ["w"], density)
    exact = (expert.double() - base.double()).abs()
    rounded = exact.float()
    rank = max(1, round(density * len(values)))
    smallest = rounded.sort(descending=True).values[rank - 1]
    assert torch.equal(exact >= threshold, rounded >= smallest)


def test_several_tensors_share_one_threshold(tmp_path: Path) -> None:
    zeros = {"a": torch.zeros(4, 5), "b": torch.zeros(10)}
    moved = {"a": torch.arange(20.0).view(4, 5), "b": torch.arange(10.0) + 100}
    sources = [_source("base", tmp_path / "base", zeros), _source("sw", tmp_path / "sw", moved)]
    joint = trimming_threshold(sources[0], sources[1], ["a", "b"], 0.5)
    assert np.float32(joint) == 15.0  # ten of b, and 15 … 19 of a
    assert np.float32(trimming_threshold(sources[0], sources[1], ["a"], 0.1)) == 18.0


def test_at_least_one_entry_is_kept(tmp_path: Path) -> None:
    sources = [
        _source("base", tmp_path / "base", {"w": torch.zeros(8)}),
        _source("sw", tmp_path / "sw", {"w": torch.arange(8.0)}),
    ]
    assert np.float32(trimming_threshold(sources[0], sources[1], ["w"], 0.001)) == 7.0
    assert trimming_threshold(sources[0], sources[1], ["w"], 1.0) == 0.0
