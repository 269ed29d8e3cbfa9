"""What a config of compressed-tensors says of weights, where it is one scheme of whole numbers for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

PACKED = "pack-quantized"
FORMATS = (PACKED, "int-quantized", "naive-quantized")
_STRATEGIES = ("tensor", "channel", "group")
_BITS = (2, 4, 8)
"""Widths that llm-compressor offers and that fill an int32: versions of the library pack the others in two ways."""
_SPARSE = "sparsity_config"
_LOST = {
    _SPARSE: "weights are sparse",
    "moe_sparsity_config": "experts are pruned",
    "transform_config": "weights are rotated",
}
"""Settings under which weights are not all there is to it, or not as they are stored."""
_NO_GROUP = (None, -1)
_NO_ORDER = (None, False, "weight", "static")
"""Orders of inputs that mattered while the model was quantised, and are those of the matrix again."""
_RUNNING = ("input_activations", "output_activations", "kv_cache_scheme")
"""Settings of what is quantised while a model runs; its weights are whole without."""


@dataclass(frozen=True)
class Scheme:
    """How every weight of codes is quantised.

    Attributes:
        format: How codes are stored, one of `FORMATS`.
        bits: Bits of a code.
        symmetric: Whether there are no zero points.
        strategy: What a scale is for: `tensor`, `channel` (a row) or `group` (inputs of a row).
        group: Inputs of a group, None for the other strategies.
        running: What else is quantised while the model runs, as the config calls it.
    """

    format: str
    bits: int
    symmetric: bool
    strategy: str
    group: int | None
    running: tuple[str, ...] = ()

    @property
    def arguments(self) -> dict[str, Any]:
        """What the library is told of weights."""
        told = {"num_bits": self.bits, "symmetric": self.symmetric}
        return {**told, "strategy": self.strategy, "group_size": self.group}

    def words(self, count: int) -> int:
        """How many int32 hold so many codes."""
        return -(-count * self.bits // 32)


def scheme_of(settings: Mapping[str, Any]) -> Scheme:
    """The scheme of a `quantization_config`. The library reads more of it, and takes it on trust.

    Raises:
        ValueError: It is none that is known here; says why.
    """
    dense = _mapping(settings.get(_SPARSE)).get("format") == "dense"  # every weight is stored
    for key, meaning in _LOST.items():
        if settings.get(key) and not (dense and key == _SPARSE):
            raise ValueError(f"config.json says that {meaning} ({key})")
    groups = _mapping(settings.get("config_groups"))
    if len(groups) > 1:
        raise ValueError(f"config.json has {len(groups)} schemes for different weights (config_groups)")
    scheme = _mapping(next(iter(groups.values()), None))
    weights = _mapping(scheme.get("weights"))
    if not weights:
        raise ValueError("config.json does not say how weights are quantised (config_groups)")
    running = tuple(key for key in _RUNNING if scheme.get(key) or settings.get(key))
    return replace(_of_weights(weights, scheme.get("format") or settings.get("format")), running=running)


def _of_weights(weights: Mapping[str, Any], form: Any) -> Scheme:
    keys = ("num_bits", "strategy", "group_size", "symmetric", "actorder")
    stated: list[Any] = [weights.get(key) for key in keys]
    bits, strategy, group, symmetric, order = stated
    grouped = strategy == "group"
    for key, value, known in (
        ("format", form, form in FORMATS),
        ("type", weights.get("type"), weights.get("type") == "int"),
        ("num_bits", bits, type(bits) is int and bits in _BITS),
        ("symmetric", symmetric, isinstance(symmetric, bool)),
        ("strategy", strategy, strategy in _STRATEGIES),
        ("group_size", group, type(group) is int and group > 0 if grouped else group in _NO_GROUP),
        ("actorder", order, order in _NO_ORDER),
    ):
        if not known:
            raise ValueError(f"config.json says {key} {value!r}, which is not dequantised here")
    return Scheme(form, bits, symmetric, strategy, group if grouped else None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
