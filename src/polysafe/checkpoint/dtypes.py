"""Storage types of the safetensors format, and which of them an edit may do arithmetic on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from polysafe.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    import torch

BITS: dict[str, int] = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}
"""Bits per element of every type code that safetensors 0.8 knows."""

EDITABLE = frozenset({"BF16", "F16", "F32", "F64"})
"""Types that arithmetic is defined on. Everything else can only be copied."""

FLOATS = ("BF16", "F16", "F32")
"""Types that a model is computed in, or imported in."""

QUANTISED = frozenset(code for code in BITS if code[:2] in {"F4", "F6", "F8"}) | {"I8", "U8"}
"""Types in which a weight matrix is a code for numbers that live elsewhere (scales, lookup tables)."""

TORCH_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
    "C64": "complex64",
}
"""Type as safetensors names it -> as torch and configs name it."""


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor on the processor, as files hold them."""
    import torch

    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def torch_dtype(code: str) -> torch.dtype:
    """The torch type that holds elements of the safetensors type `code`; packed types are held as bytes."""
    import torch

    dtype: torch.dtype = getattr(torch, TORCH_NAMES.get(code, "uint8"))
    return dtype


def fast_type() -> Literal["BF16", "F32"]:
    """What this processor takes products of models fastest in: bfloat16 only where it has instructions for it.

    Without them (AVX512-BF16, AMX, Arm's BF16) torch spells bfloat16 out, which takes several times as long as float32.
    """
    import torch

    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "BF16" if any("bf16" in name and there for name, there in has.items()) else "F32"


def float_dtype(code: str) -> torch.dtype:
    """The torch type of a type that the user named for a model, in small letters or capitals.

    Raises:
        RecipeError: It is none of `FLOATS`.
    """
    if code.upper() not in FLOATS:
        raise RecipeError(
            f"there is no type {code!r} for the numbers of a model",
            where="--dtype",
            remedy=did_you_mean(code.upper(), FLOATS) or f"types: {', '.join(FLOATS)}",
        )
    return torch_dtype(code.upper())
