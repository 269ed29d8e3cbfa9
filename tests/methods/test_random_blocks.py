"""The control of methods that choose blocks: as many of each choice, at other blocks, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from polysafe.checkpoint.opened import Sources
from polysafe.methods.band_swap import BandSwap
from polysafe.methods.layer_swap import LayerSwap
from polysafe.methods.random_blocks import BlockMethod
from polysafe.recipe.recipe import make_recipe
from polysafe.workflows.controls import write_controls
from tests.methods.conftest import Opener
from tests.methods.helpers import differing, result

SWAPS = (
    LayerSwap(base="base", safety="safety", language="sw", granularity="layer", tau_mode="quantile", tau=0.5),
    LayerSwap(base="base", safety="safety", language="sw", granularity="module", tau_mode="quantile", tau=0.5),
    BandSwap(safety="safety", language="sw", bottom=2, top=1),
)
named = pytest.mark.parametrize("method", SWAPS, ids=lambda method: method.label)


def _choices(method: BlockMethod, sources: Sources) -> list[tuple[str | None, str]]:
    decisions = method.fit(sources).provenance[0].decisions
    return [(decision.module, decision.choice) for decision in decisions if decision.layer is not None]


@named
def test_as_many_blocks_of_each_choice_and_kind_at_other_places(method: BlockMethod, llama: Sources) -> None:
    own = _choices(method, llama)
    drawn = [_choices(control, llama) for control in method.controls(6)]
    assert all(Counter(each) == Counter(own) for each in drawn)
    assert len({tuple(each) for each in (own, *drawn)}) > 4


@named
def test_a_draw_is_its_seed(method: BlockMethod, llama: Sources) -> None:
    first, second = method.controls(2)
    assert _choices(first, llama) == _choices(method.controls(1)[0], llama)
    assert [each.label for each in (first, second)] == [f"control.{method.label}.random.{seed}" for seed in (0, 1)]


def test_weights_follow_the_places(llama: Sources) -> None:
    method = SWAPS[2]
    control = next(each for each in method.controls(9) if _choices(each, llama) != _choices(method, llama))
    moved = {
        layer
        for layer, (own, drawn) in enumerate(zip(_choices(method, llama), _choices(control, llama), strict=True))
        if own != drawn
    }
    changed = differing(result(method.fit(llama), llama), result(control.fit(llama), llama))
    assert {int(name.split(".")[2]) for name in changed} == moved
    assert all(name.startswith("model.layers.") for name in changed)


def test_a_recipe_with_a_swap_has_controls(tmp_path: Path, opened: Opener, llama: Sources) -> None:
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(llama[name].checkpoint.root)} for name in ("base", "safety", "sw")},
            "edits": [SWAPS[0]],
            "output": {"path": str(tmp_path / "out")},
        }
    )
    written = dict(write_controls(recipe, tmp_path / "edits", 2))
    assert list(written) == [
        "layer_swap.layer", "control.layer_swap.layer.random.0", "control.layer_swap.layer.random.1",
    ]  # fmt: skip
