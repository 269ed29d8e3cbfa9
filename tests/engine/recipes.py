"""Recipes over tiny trios."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polysafe.recipe.recipe import Recipe, make_recipe

LAYER_SWAP: dict[str, Any] = {"method": "layer_swap", "base": "base", "safety": "safety", "language": "sw"}
SOUP: dict[str, Any] = {"method": "soup", "weights": {"safety": 0.3, "sw": 0.7}}


def recipe_for(
    paths: Mapping[str, Path], output: Path, *edits: Mapping[str, Any], shard_size: int | str = "5GB", **others: Any
) -> Recipe:
    """A recipe whose sources are the given folders."""
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(path)} for name, path in paths.items()},
            "edits": list(edits) or [LAYER_SWAP],
            "output": {"path": str(output), "shard_size": shard_size, **others},
        }
    )
