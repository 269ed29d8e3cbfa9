"""Band swapping: the sequence of weights, both readings of a pair of counts, and what lands where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from polysafe.checkpoint.opened import Sources
from polysafe.edits.operations import Blend, Copy
from polysafe.errors import MismatchError, RecipeError
from polysafe.methods.band_swap import PRESETS, BandSwap
from tests.methods.conftest import Opener
from tests.models import bump, layer_of, tiny_model

_COUNTS = st.integers(0, 12)


def _method(**options: Any) -> BandSwap:
    return BandSwap(safety="safety", language="sw", **options)


def test_reported_default_for_32_layers() -> None:
    weights = _method(bottom=5, top=2, transition_bottom=1, transition_top=1, transition_weight=0.25).weights(32)
    assert weights == (*[0.0] * 5, 0.25, *[1.0] * 23, 0.25, *[0.0] * 2)
    assert _method().weights(32) == (*[0.0] * 5, 0.5, *[1.0] * 23, 0.5, *[0.0] * 2)


@given(_COUNTS, _COUNTS, _COUNTS, _COUNTS, st.integers(1, 40))
def test_weights_follow_the_definition(b: int, u: int, tb: int, tu: int, layers: int) -> None:
    method = _method(bottom=b, top=u, transition_bottom=tb, transition_top=tu, transition_weight=0.25)
    if b + u + tb + tu > layers:
        with pytest.raises(RecipeError, match=f"bands overlap.*{layers} layers"):
            method.weights(layers)
        return
    for layer, weight in enumerate(method.weights(layers)):
        if layer < b or layer >= layers - u:
            assert weight == 0
        elif layer < b + tb or layer >= layers - u - tu:
            assert weight == 0.25
        else:
            assert weight == 1


def _safety_layers(method: BandSwap, sources: Sources) -> list[int]:
    return [
        d.layer for d in method.fit(sources).provenance[0].decisions if d.choice == "safety" and d.layer is not None
    ]


def test_both_readings_of_two_counts(llama: Sources) -> None:
    """As with 10/6 of 32 layers: counts of the language expert's outer layers, or of the safety expert's."""
    counts = {"bottom": 3, "top": 2, "transition_bottom": 0, "transition_top": 0}
    assert _safety_layers(_method(**counts), llama) == [3, 4, 5]
    assert _safety_layers(_method(**counts, donor_of_middle="language"), llama) == [0, 1, 2, 6, 7]


def test_whole_layers_move_and_everything_outside_stays(llama: Sources) -> None:
    edit = _method(bottom=2, top=1).fit(llama)
    assert edit.start == "sw"
    for name in llama["sw"].architecture.roles:
        layer = layer_of(name)
        operation = edit.steps.get(name, (Copy(source="sw"),))[0]
        if layer is None or layer in {0, 1, 7}:
            assert operation == Copy(source="sw")
        elif layer in {2, 6}:
            assert operation == Blend(weights={"safety": 0.5, "sw": 0.5})
        else:
            assert operation == Copy(source="safety")


def test_outside_can_come_from_the_safety_expert(llama: Sources) -> None:
    edit = _method(bottom=2, top=1, outside="safety").fit(llama)
    for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
        assert edit.steps[name] == (Copy(source="safety"),)


def test_overlapping_bands_are_refused(llama: Sources) -> None:
    with pytest.raises(RecipeError, match=r"bottom 5 \+ transitions 1 \+ 1 \+ top 2 are more than the 8 layers"):
        _method().fit(llama)


def test_presets_fill_the_counts_and_can_be_overridden() -> None:
    assert set(PRESETS) == set(BandSwap.model_json_schema()["properties"]["preset"]["anyOf"][0]["enum"])
    french = _method(preset="lasbordes_2026_french")
    assert [layer for layer, weight in enumerate(french.weights(36)) if weight] == list(range(13, 23))
    chinese = _method(preset="lasbordes_2026_chinese")
    assert [layer for layer, weight in enumerate(chinese.weights(36)) if weight] == list(range(13, 21))
    assert _method(preset="bandarkar_peng_2025", top=4).top == 4
    assert BandSwap.model_validate(french.model_dump()) == french
    with pytest.raises(ValidationError, match="preset"):
        _method(preset="unheard_of")


def test_preset_for_another_depth_is_told(llama: Sources) -> None:
    edit = _method(preset="bandarkar_peng_2025", bottom=2, top=1).fit(llama)
    assert any("32 layers, this model has 8" in warning for warning in edit.provenance[0].warnings)


def test_vocabularies_may_differ_unless_the_embedding_is_taken(tmp_path: Path, opened: Opener) -> None:
    small, wide = tiny_model(layers=8), tiny_model(layers=8, vocab=48)
    sources = opened({"safety": small.save(tmp_path / "s"), "sw": wide.updated(1, bump(8)).save(tmp_path / "l")})
    assert _method(bottom=1, top=1).fit(sources).steps
    with pytest.raises(MismatchError, match="48"):
        _method(bottom=1, top=1, outside="safety").fit(sources)


def test_one_source_cannot_be_both_experts() -> None:
    with pytest.raises(ValidationError, match="two different sources"):
        BandSwap(safety="sw", language="sw")
