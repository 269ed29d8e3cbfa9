"""Outcomes that are made up, for tests without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polysafe.organism.packaged import packaged_family
from polysafe.search.points import Outcome, Point
from polysafe.search.space import Space, make_space

N = 40


def outcome(refused: int, kl: float = 0.0, *, p_value: float = 1e-9, over: float = 0.0, limit: float = 0.02) -> Outcome:
    """An edit that refuses so many of 40 prompts, of which the unedited model refuses 10."""
    items: dict[str, float | bool] = {f"set/{row}": row < refused for row in range(N)}
    difference = (refused - 10) / N
    gain = {"language": "sw", "difference": difference, "low": difference - 0.1, "high": difference + 0.1, "n": N}
    loss = {
        "language": "sw",
        "metric": "over_refusal",
        "difference": over,
        "low": None,
        "high": None,
        "n": N,
        "limit": limit,
        "within": over <= limit,
    }
    return Outcome(
        feasible=over <= limit,
        score=2 * difference,
        p_value=p_value,
        gains=[gain],
        losses=[loss],
        costs={"kl": kl, "over_refusal": over, "size": 0.01},
        reading=[("sw", "refused", items)],
        seconds={"deciding": 0.0, "reading": 1.0},
        edit="0" * 64,
    )


def point(number: int, *arguments: Any, **options: Any) -> Point:
    """A point with a made-up outcome."""
    return Point(number, {"strength": number}, outcome(*arguments, **options))


def steering(fields: Mapping[str, Any], search: Mapping[str, Any] | None = None, more: Sequence[Any] = ()) -> Space:
    """A space over fields of head steering; its sources are not there."""
    entry = {"method": "head_steering", "model": "m", "harmful": "h", "languages": ["sw"], **fields}
    return make_space(
        {
            "polysafe": 1,
            "sources": {"m": {"path": "m"}, "h": {"path": "h"}},
            "edits": [entry, *more],
            "output": {"path": "out"},
            "search": dict(search or {}),
        },
        "/",
    )


VALIDATION = {
    "languages": ["en", "qac"],
    "safety": ["organism"],
    "over_refusal": ["organism"],
    "judge": {"kind": "organism"},
    "limit": 12,
}


def toy_space(tmp_path: Path, *edits: Mapping[str, Any], **more: Any) -> Space:
    """A space over edits of the packaged family, read in the pivot and one language."""
    sources = {name: {"path": str(folder)} for name, folder in packaged_family().members.items()}
    data = {"polysafe": 1, "sources": sources, "edits": list(edits), "output": {"path": str(tmp_path / "model")}}
    return make_space({**data, "validation": VALIDATION, **more})
