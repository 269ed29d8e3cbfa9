"""Every source of a recipe is held to its own tensors, whichever place it has."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from polysafe.edits.edit import Edit
from polysafe.errors import ArchitectureError, CheckpointError
from polysafe.recipe.recipe import Recipe, make_recipe
from polysafe.workflows.apply import apply_edit
from polysafe.workflows.run import run_recipe
from tests.models import trio

LIES: dict[str, dict[str, Any]] = {
    "no heads": {"num_attention_heads": 0, "head_dim": 0},
    "layers in words": {"num_hidden_layers": "four"},
    "other layers": {"num_hidden_layers": 5},
    "a width of another model": {"hidden_size": 32},
    "half a head": {"num_key_value_heads": 1.5},
}


def lie(folder: Path, **said: object) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **said}))


def swap(folder: Path) -> Recipe:
    return make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": name} for name in ("base", "safety", "sw")},
            "edits": [{"method": "layer_swap", "base": "base", "safety": "safety", "language": "sw"}],
            "output": {"path": "out"},
        },
        folder,
    )


@pytest.mark.fault(6, "a config that contradicts its tensors")
@pytest.mark.hostile("config")
@pytest.mark.parametrize("source", ["base", "safety", "sw"])
@pytest.mark.parametrize("said", LIES.values(), ids=LIES)
def test_a_config_that_lies_is_refused_in_any_source(tmp_path: Path, source: str, said: dict[str, Any]) -> None:
    trio(tmp_path)
    recipe = swap(tmp_path)
    lie(tmp_path / source, **said)
    with pytest.raises(ArchitectureError, match=str(tmp_path / source)):
        run_recipe(recipe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["safety", "sw"])
def test_so_it_is_when_an_edit_is_applied(tmp_path: Path, source: str) -> None:
    models = trio(tmp_path)
    recipe = swap(tmp_path)
    edit = Edit.load(run_recipe(recipe).output / "polysafe")
    lie(tmp_path / source, num_attention_heads=0)
    with pytest.raises(ArchitectureError, match="num_attention_heads 0"):
        apply_edit(edit, {"safety": models.safety, "sw": models.language, "base": models.base}, tmp_path / "again")


@pytest.mark.hostile("config")
@pytest.mark.parametrize("source", ["base", "safety", "sw"])
def test_a_tokenizer_of_absurd_size_is_not_read_to_be_compared(tmp_path: Path, source: str) -> None:
    trio(tmp_path)
    for name in ("base", "safety", "sw"):
        (tmp_path / name / "tokenizer.json").write_text("{}")
    os.truncate(tmp_path / source / "tokenizer.json", 2**35)
    with pytest.raises(CheckpointError, match=rf"{source}/tokenizer\.json: is larger than"):
        run_recipe(swap(tmp_path))
