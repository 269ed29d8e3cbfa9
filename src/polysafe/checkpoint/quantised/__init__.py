"""Quantised checkpoints: which format, told by what, and what to use instead.

The config says it, or the names and types of the tensors do where the config was lost or edited. Formats with a module
of their own here can be made ordinary (`polysafe import`): their codes mean numbers that can be written down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from polysafe.checkpoint.dtypes import QUANTISED
from polysafe.checkpoint.header import TensorSpec
from polysafe.checkpoint.licence import card_data
from polysafe.checkpoint.source import Checkpoint
from polysafe.errors import CheckpointError

FP8 = "fp8"
_LABELS = {
    FP8: "FP8",
    "fbgemm_fp8": "FP8 (FBGEMM)",
    "compressed-tensors": "compressed-tensors",
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "mxfp4": "MXFP4",
    "modelopt": "ModelOpt",
}
_ALIASES = {"finegrained_fp8": FP8, "compressed_tensors": "compressed-tensors", "bnb": "bitsandbytes"}
_IMPORT = "make an ordinary folder of it with `polysafe import`"
_ADVICE = {
    FP8: _IMPORT,
    "compressed-tensors": _IMPORT,
    "bitsandbytes": _IMPORT,
    "mxfp4": _IMPORT,
}
"""What makes ordinary weights of a format; of the others only the release that they were made of will do."""
LIBRARIES = {"bitsandbytes": ("bitsandbytes", "accelerate")}
"""Formats that can be asked (`probe.asked`), and the packages that transformers needs for them."""
_SUFFIXES = {
    ".weight_packed": "compressed-tensors",
    ".SCB": "bitsandbytes",
    ".absmax": "bitsandbytes",
    "_blocks": "mxfp4",
    ".weight_scale_inv": FP8,
    ".weight_scale": FP8,
}
"""Ends of names that tell a format, the surest first."""
_PACKED = (".qweight", ".weight_packed")
_HUB = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised.

    Attributes:
        method: The format as configs name it; `unknown` where nobody can tell.
        bits: Bits of a weight, None where it is not said.
        told: What it is told by.
        settings: What the config says of it.
    """

    method: str
    bits: int | None
    told: str
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The format in words."""
        name = _LABELS.get(self.method, self.method)
        return name if self.bits is None else f"{name}, {self.bits} bits"


def quantisation(checkpoint: Checkpoint) -> Quantisation | None:
    """How a checkpoint is quantised; None where its weights are numbers."""
    stated = checkpoint.config.get("quantization_config") or checkpoint.text_config.get("quantization_config")
    settings: Mapping[str, Any] = stated if isinstance(stated, dict) else {}
    coded = next((spec for spec in checkpoint.tensors.values() if is_code(spec)), None)
    if not settings and coded is None:
        return None
    named = str(settings.get("quant_method", "unknown")).lower()
    if settings:
        told = f"config.json says {named!r}"
    else:
        assert coded is not None
        told = f"tensor {coded.name!r} is stored as {coded.dtype}"
    method = _ALIASES.get(named, named)
    if method == "unknown":
        method = _by_tensors(checkpoint.tensors)
    return Quantisation(method, _bits(settings), told, settings)


def check_editable(checkpoint: Checkpoint) -> None:
    """Refuses quantised checkpoints: their tensors are codes, and arithmetic on codes is meaningless.

    Raises:
        CheckpointError: Names the format and what to use instead.
    """
    found = quantisation(checkpoint)
    if found is None:
        return
    coded = any(spec.dtype.startswith("F8_E") and spec.name.endswith(".weight") for spec in checkpoint.tensors.values())
    advised = _ADVICE.get(FP8 if coded else found.method)
    advice = f"; or {advised}" if advised else ""
    kept = "not edited, and only asked" if found.method in LIBRARIES else "neither edited nor run here"
    raise CheckpointError(
        f"is a quantised checkpoint ({found.label}: {found.told}); its weights are codes, which are {kept}",
        where=checkpoint.root,
        remedy=f"use {release(checkpoint)} and quantise the result{advice}",
    )


def release(checkpoint: Checkpoint) -> str:
    """What to use instead of a quantised checkpoint, in words; by its name where its card says one."""
    base = base_model(checkpoint)
    named = f" ({base}, as its card says)" if base else ""
    return f"the unquantised bfloat16, float16 or float32 release of this model{named}"


def base_model(checkpoint: Checkpoint) -> str | None:
    """The hub id that the card of a checkpoint names as what it was made of."""
    named = card_data(checkpoint.root).get("base_model")
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) and _HUB.fullmatch(first) else None


def is_code(spec: TensorSpec) -> bool:
    """Whether a tensor holds codes: GPT-2 and GPT-NeoX store their causal masks as bytes too, under the name of a bias.

    GPTQ, AWQ and compressed-tensors pack several codes into an int32.
    """
    stored_as_code = spec.dtype in QUANTISED and len(spec.shape) > 1 and not spec.name.endswith("bias")
    return stored_as_code or spec.name.endswith(_PACKED)


def _by_tensors(tensors: Mapping[str, TensorSpec]) -> str:
    packed = next((spec for name, spec in tensors.items() if name.endswith(".qweight")), None)
    if packed is not None:
        # GPTQ packs inputs, the rows of [in / 8, out], and AWQ outputs: [in, out / 8]; scales are [groups, out] in both
        scales = tensors.get(f"{packed.name.removesuffix('.qweight')}.scales")
        return "awq" if scales is not None and scales.shape[-1] != packed.shape[-1] else "gptq"
    for suffix, method in _SUFFIXES.items():
        if any(name.endswith(suffix) for name in tensors):
            return method
    return FP8 if any(spec.dtype.startswith("F8_E4M3") for spec in tensors.values()) else "unknown"


def _bits(settings: Mapping[str, Any]) -> int | None:
    for key in ("bits", "w_bit"):
        if isinstance(settings.get(key), int):
            return int(settings[key])
    widths = {4: "load_in_4bit", 8: "load_in_8bit"}
    return next((bits for bits, key in widths.items() if settings.get(key) is True or settings.get(f"_{key}")), None)
