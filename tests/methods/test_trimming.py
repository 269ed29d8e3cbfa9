"""The trimming threshold against sorting whole task vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import Architecture
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import CheckpointError
from polysafe.methods.trimming import trimming_threshold
from polysafe.threads import threads

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


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.bfloat16)])
@pytest.mark.parametrize("density", [0.001, 0.2, 0.7])
def test_blocks_that_are_read_again_give_the_threshold_of_blocks_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtypes: tuple[torch.dtype, torch.dtype], density: float
) -> None:
    """Several blocks, numbers of any exponent in 16 bits, whose differences float64 does not always hold."""
    generator = torch.Generator().manual_seed(3)

    def tensor(dtype: torch.dtype) -> torch.Tensor:
        exponents = torch.randint(-90, 12, (700, 600), generator=generator).double()
        return (torch.randn(700, 600, generator=generator).double() * 2**exponents).to(dtype)

    base, expert = (tensor(dtype) for dtype in dtypes)
    sources = [_source(n, tmp_path / n, {"w": t}) for n, t in (("base", base), ("sw", expert))]
    kept = trimming_threshold(sources[0], sources[1], ["w"], density)
    rounded = (expert.double() - base.double()).abs().float()
    smallest = rounded.flatten().sort(descending=True).values[round(density * rounded.numel()) - 1]
    assert np.float32(kept) == smallest
    monkeypatch.setattr("polysafe.methods.trimming._HELD", 0)
    assert trimming_threshold(sources[0], sources[1], ["w"], density) == kept


@pytest.mark.parametrize("held", [0, 100])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float, held: int
) -> None:
    monkeypatch.setattr("polysafe.methods.trimming._HELD", held)
    broken = {"v": torch.zeros(8), "w": torch.tensor([1.0, bad, 0.0, 2.0])}
    sources = [
        _source("base", tmp_path / "base", {"v": torch.zeros(8), "w": torch.zeros(4)}),
        _source("sw", tmp_path / "sw", broken),
    ]
    with pytest.raises(CheckpointError, match="tensor w of 'base' or 'sw' holds NaN or infinity"):
        trimming_threshold(sources[0], sources[1], ["v", "w"], 0.5)


def test_a_difference_too_large_for_float32_is_the_largest_and_no_error(tmp_path: Path) -> None:
    sources = [
        _source("base", tmp_path / "base", {"w": torch.tensor([-3e38, 0.0, 0.0, 0.0])}),
        _source("sw", tmp_path / "sw", {"w": torch.tensor([3e38, 1.0, 2.0, 3.0])}),
    ]
    assert np.float32(trimming_threshold(sources[0], sources[1], ["w"], 0.5)) == 3.0


def test_blocks_are_not_shared_among_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are too small: threads that wait for each other cost several times the work."""
    sources = [_source(n, tmp_path / n, {"w": torch.arange(8.0) * k}) for k, n in enumerate(("base", "sw"))]
    seen: list[int] = []
    rows = CheckpointReader.rows

    def counted(self: CheckpointReader, name: str, start: int, stop: int) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return rows(self, name, start, stop)

    monkeypatch.setattr(CheckpointReader, "rows", counted)
    with threads(2):
        trimming_threshold(sources[0], sources[1], ["w"], 0.5)
        assert torch.get_num_threads() == 2
    assert set(seen) == {1}
