from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.dtypes import bytes_of
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.values import HUGE, Survey, is_finite


def spec(dtype: str = "F32", rows: int = 4) -> TensorSpec:
    return TensorSpec("w", dtype, (rows, 3), Path("w"), 0, rows * 12)


def seen(*blocks: torch.Tensor, of: TensorSpec | None = None) -> list[str]:
    survey = Survey()
    for block in blocks:
        assert [*survey.seen(of or spec(), [bytes_of(block)])] == [bytes_of(block)]
    return list(survey.findings())


SOUND = torch.tensor([[0.0, -1.0, 1e-3]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_block_with_numbers_that_are_none(bad: float, place: int) -> None:
    broken = SOUND.clone()
    broken[0, place] = bad
    for blocks in ([broken, SOUND, SOUND], [SOUND, broken, SOUND], [SOUND, SOUND, broken]):
        assert seen(*blocks) == ["with NaN or infinity"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0.0, -0.0, 0.0], ["of nothing but zeros"]),
        ([1e-40, 0.0, -1e-39], ["of nothing but denormal numbers"]),
        ([1e-40, 0.0, 1e-30], []),
        ([0.0, -2 * HUGE, 0.0], [f"with numbers above {HUGE:g}"]),
        ([0.0, HUGE, -1.0], []),
    ],
)
def test_extremes_of_a_matrix(values: list[float], told: list[str]) -> None:
    block = torch.tensor([values])
    assert seen(block, block) == told
    assert seen(block, SOUND) == [text for text in told if "above" in text]
    assert seen(block[0], of=TensorSpec("bias", "F32", (3,), Path("w"), 0, 12)) == []


def test_denormal_numbers_are_those_of_the_storage_type() -> None:
    small = torch.tensor([[1e-5, 0.0, 1e-6]])
    assert seen(small.half(), of=spec("F16")) == ["of nothing but denormal numbers"]
    assert seen(small.bfloat16(), of=spec("BF16")) == seen(small) == []


def test_codes_are_no_numbers() -> None:
    assert seen(torch.zeros(4, 3, dtype=torch.uint8), of=spec("U8")) == []


def test_tensors_are_named() -> None:
    survey = Survey()
    for number in range(5):
        survey.add(TensorSpec(f"w{number}", "F32", (1, 3), Path("w"), 0, 12), bytes_of(torch.zeros(1, 3)))
    assert list(survey.lines()) == ["5 tensors of nothing but zeros: w0, w1, w2 …"]


def test_finite() -> None:
    assert is_finite(torch.empty(0, 3))
    assert is_finite(torch.tensor([3e38, -3e38]))
    assert not is_finite(torch.tensor([1.0, math.nan]))
