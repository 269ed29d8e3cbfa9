"""What the story on the packaged family tries: the settings of its methods, as recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polysafe.data.organism import ORGANISM
from polysafe.recipe.recipe import Recipe, make_recipe

if TYPE_CHECKING:
    from polysafe.organism.packaged import Family

METHODS: tuple[Mapping[str, Any], ...] = (
    {"method": "layer_swap", "granularity": "layer", "base": "base", "safety": "safety"},
    {"method": "layer_swap", "granularity": "module", "base": "base", "safety": "safety"},
    {"method": "band_swap", "safety": "safety", "bottom": 3, "top": 0, "transition_bottom": 0, "transition_top": 0},
    {"method": "soup"},
    {"method": "task_arithmetic", "base": "base", "scale": 1.0},
)
"""What is shown, with the published settings of the swaps; the band was chosen on development seeds."""

_SPARSE: Mapping[str, Any] = {
    "model": "base",
    "languages": ["qac", "qad", "qae"],
    "anchors": "organism",
    "utility_weight": 0.1,
}
_VALIDATED: Mapping[str, Any] = {**_SPARSE, "absolute": True, "cap": 0.5, "target_gain": [1.0, 1.5, 2.0, 3.0]}
SPARSE_EDITS: tuple[Mapping[str, Any], ...] = (
    {**_VALIDATED, "max_layers": 3},
    {**_SPARSE, "cap": 0.25},
    *({**_VALIDATED, "leave_out": language} for language in ("qac", "qad", "qae")),
)
"""Edits of the base: validated and published setting, and one language left out of everything at a time."""
RANDOM_DRAWS = 3
"""Controls of the first sparse edit: as many units, drawn at random."""

_STEERED: Mapping[str, Any] = {
    "model": "base",
    "harmful": "harm",
    "languages": ["qac", "qad", "qae"],
    "tasks": "organism",
}
HEAD_EDITS: tuple[Mapping[str, Any], ...] = (
    {**_STEERED, "together": "mean", "fraction": [0.25, 0.5], "strength": [1.0, 2.0]},
    {**_STEERED, "prompts": 25, "score": "first", "corruption": "permute"},
    {**_STEERED, "together": "mean", "ranking": "absolute"},
)
"""Edits of the base by head steering: validated and published setting, and heads ranked by the size of their effect."""

VALIDATION: Mapping[str, Any] = {
    "safety": [ORGANISM],
    "over_refusal": [ORGANISM],
    "judge": {"kind": ORGANISM},
    "constraints": {"over_refusal": 0.02, "refused": -0.02, "helpful": -0.02},
}
"""What swaps are chosen by: refusals of the family's validation prompts, at little cost in the expert's language and
the pivot."""


def swap_entry(settings: Mapping[str, Any], language: str) -> dict[str, Any]:
    """The edit that brings safety into one language expert, a source that is called like its language."""
    entry = dict(settings)
    match entry["method"]:
        case "layer_swap" | "band_swap":
            entry["language"] = language
        case "soup":
            entry["weights"] = {"safety": 0.5, language: 0.5}
            entry["start_from"] = language
        case _:
            entry["experts"] = ["safety", language]
            entry["start_from"] = language
    return entry


def swap_recipe(settings: Mapping[str, Any], family: Family, language: str, output: Path) -> Recipe:
    """The recipe that brings safety into one language expert of the family."""
    entry = swap_entry(settings, language)
    label = ".".join(str(entry[key]) for key in ("method", "granularity") if key in entry)
    sources = {name: family.members[name] for name in ("base", "safety", language)}
    return recipe_of([entry], sources, output / "models" / label / language)


def recipe_of(edits: Sequence[object], sources: Mapping[str, Path], output: Path) -> Recipe:
    named = {name: {"path": str(path)} for name, path in sources.items()}
    return make_recipe({"polysafe": 1, "sources": named, "edits": list(edits), "output": {"path": str(output)}})
