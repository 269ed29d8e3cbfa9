"""Types of numbers, and which of them a processor is fast in."""

from __future__ import annotations

import pytest

from polysafe.checkpoint.dtypes import fast_type

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "F32"),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, "BF16"),
        ({}, "F32"),
    ],
)
def test_bfloat16_only_where_there_are_instructions_for_it(
    has: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    assert fast_type() == expected
