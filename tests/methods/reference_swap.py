"""The published rule, written down plainly: three state dicts in memory, bfloat16 throughout.

This is what `arithmetic: authors` has to reproduce bit for bit. It follows the specification step by step and shares no
code with the package.
"""

from __future__ import annotations

import math
import re

import torch

State = dict[str, torch.Tensor]
Key = tuple[int, str]

_SCORED = re.compile(
    r"model\.layers\.(?P<layer>\d+)\."
    r"(?P<module>self_attn|mlp)\.(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)\."
)
_BLOCK = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<module>[^.]+)\.")


def reference_swap(
    base: State, safety: State, language: State, *, granularity: str, tau: float = 0.001, alpha: float = 0.5
) -> tuple[State, dict[Key, str]]:
    """Result and decisions; a whole layer has the key (layer, "")."""
    base, safety, language = (
        {name: tensor.to(torch.bfloat16) for name, tensor in model.items()} for model in (base, safety, language)
    )
    decisions = _decide(_sizes(base, safety, granularity), _sizes(base, language, granularity), tau)
    merged: State = {}
    for name in language:
        decision = _decision_about(name, granularity, decisions)
        if decision == "safety":
            merged[name] = safety[name]
        elif decision == "blend":
            merged[name] = alpha * safety[name] + (1 - alpha) * language[name]
        else:
            merged[name] = language[name]
    return merged, decisions


def _sizes(base: State, expert: State, granularity: str) -> dict[Key, float]:
    """The n of the specification: sums of ratios over layers, roots of sums of their squares over modules."""
    ratios: dict[Key, list[float]] = {}
    for name, origin in base.items():
        match = _SCORED.search(name)
        if match is None:
            continue
        norm, moved = torch.norm(origin).item(), torch.norm(expert[name] - origin).item()
        key = (int(match["layer"]), match["module"] if granularity == "module" else "")
        ratios.setdefault(key, []).append(moved / norm if norm > 1e-8 else moved)
    if granularity == "layer":
        return {key: sum(values) for key, values in ratios.items()}
    return {key: math.sqrt(sum(value * value for value in values)) for key, values in ratios.items()}


def _decide(safety: dict[Key, float], language: dict[Key, float], tau: float) -> dict[Key, str]:
    total_safety, total_language = sum(safety.values()) + 1e-8, sum(language.values()) + 1e-8
    decisions = {}
    for key in sorted(safety):
        difference = safety[key] / total_safety - language[key] / total_language
        decisions[key] = "safety" if difference > tau else "language" if difference < -tau else "blend"
    return decisions


def _decision_about(name: str, granularity: str, decisions: dict[Key, str]) -> str:
    if "model.layers" not in name:
        return "blend"
    match = _BLOCK.search(name)
    assert match is not None
    if granularity == "layer":
        return decisions[int(match["layer"]), ""]
    return decisions.get((int(match["layer"]), match["module"]), "language")
