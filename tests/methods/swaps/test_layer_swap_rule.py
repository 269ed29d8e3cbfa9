"""The decision rule alone: numbers in, decisions out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from polysafe.checkpoint.roles import Module
from polysafe.methods.blocks import BlockKey
from polysafe.methods.layer_swap import LayerSwap
from tests.methods.helpers import pattern

_SIZES = st.lists(st.floats(0.1, 10.0), min_size=2, max_size=40)


def _method(**options: Any) -> LayerSwap:
    return LayerSwap(base="base", safety="safety", language="sw", **{"granularity": "layer", **options})


def _layers(sizes: list[float]) -> dict[BlockKey, float]:
    return {BlockKey(layer): size for layer, size in enumerate(sizes)}


def _modules(attention: list[float], mlp: list[float]) -> dict[BlockKey, float]:
    return {
        BlockKey(layer, module): size
        for layer, pair in enumerate(zip(attention, mlp, strict=True))
        for module, size in zip((Module.ATTENTION, Module.MLP), pair, strict=True)
    }


@pytest.mark.parametrize(("tau", "expected"), [(0.001, "lssl"), (0.1, "lbsb")])
def test_worked_example(tau: float, expected: str) -> None:
    decisions = _method(tau=tau).decide(_layers([1, 2, 3, 2]), _layers([2, 1, 1, 2]))
    assert pattern(decisions) == expected
    assert [d.score for d in decisions] == pytest.approx([-0.2083, 0.0833, 0.2083, -0.0833], abs=5e-5)
    assert [d.detail["p_safety"] for d in decisions] == pytest.approx([0.125, 0.25, 0.375, 0.25], abs=1e-8)
    assert [d.block for d in decisions] == ["layers.0", "layers.1", "layers.2", "layers.3"]


@given(_SIZES, st.randoms(use_true_random=False), st.sampled_from([0.1, 3.0, 100.0]))
def test_scale_of_an_expert_does_not_matter(safety: list[float], random: Any, factor: float) -> None:
    language = [random.uniform(0.1, 1) for _ in safety]
    scores = [d.score for d in _method().decide(_layers(safety), _layers(language))]
    scaled = _method().decide(_layers([factor * size for size in safety]), _layers(language))
    assert [d.score for d in scaled] == pytest.approx(scores, abs=1e-6)


@given(_SIZES, st.randoms(use_true_random=False))
def test_scores_add_up_to_zero(safety: list[float], random: Any) -> None:
    language = [random.uniform(0.1, 1) for _ in safety]
    decisions = _method().decide(_layers(safety), _layers(language))
    assert abs(math.fsum(d.score for d in decisions if d.score is not None)) <= 1e-6


@given(_SIZES, st.randoms(use_true_random=False), st.sampled_from([0.0, 0.001, 0.05]))
def test_exchanging_the_experts_mirrors_the_decisions(safety: list[float], random: Any, tau: float) -> None:
    language = [random.uniform(0.1, 1) for _ in safety]
    method = _method(tau=tau)
    there = pattern(method.decide(_layers(safety), _layers(language)))
    back = pattern(method.decide(_layers(language), _layers(safety)))
    assert back == there.translate(str.maketrans("sl", "ls"))


def test_an_expert_that_did_not_move_gets_nothing() -> None:
    still, moved = _layers([0, 0, 0]), _layers([1, 2, 3])
    assert pattern(_method().decide(moved, still)) == "sss"
    assert pattern(_method().decide(still, moved)) == "lll"
    assert pattern(_method().decide(still, still)) == "bbb"


def test_ties_blend_on_both_sides() -> None:
    """With d = 0.25 exactly (the epsilon is 1e-8 of the sum), only a smaller τ decides."""
    scale = 2.0**60  # makes Σ n + 1e-8 equal to Σ n
    safety, language = _layers([3 * scale, scale]), _layers([2 * scale, 2 * scale])
    assert [d.score for d in _method().decide(safety, language)] == [0.25, -0.25]
    assert pattern(_method(tau=0.25).decide(safety, language)) == "bb"
    assert pattern(_method(tau=math.nextafter(0.25, 0)).decide(safety, language)) == "sl"


def test_equal_profiles_blend_even_without_threshold() -> None:
    assert pattern(_method(tau=0).decide(_layers([1, 2]), _layers([1, 2]))) == "bb"


def test_normalising_per_family_decides_differently() -> None:
    """Safety moved its attention more than its MLP; that difference counts only when shares are joint."""
    safety, language = _modules([3, 3.3], [1, 1.3]), _modules([2, 2], [2, 2])
    joint = _method(granularity="module").decide(safety, language)
    per_family = _method(granularity="module", normalise="per_family").decide(safety, language)
    assert pattern(joint) == "slsl"
    assert pattern(per_family) == "llss"
    for family in ("attention", "mlp"):
        shares = [d.detail["p_safety"] for d in per_family if d.module == family]
        assert math.fsum(shares) == pytest.approx(1, abs=1e-7)


def test_depth_scaled_threshold() -> None:
    d = {BlockKey(layer, module): 0.0 for layer in range(16) for module in Module}
    assert _method(tau=0.001, tau_mode="depth_scaled").threshold(d) == pytest.approx(0.002)
    assert _method(tau=0.001, tau_mode="absolute").threshold(d) == 0.001


def test_quantile_threshold_blends_that_share() -> None:
    safety, language = _layers([1, 2, 3, 4, 5, 6, 7, 8]), _layers([4.5] * 8)
    decisions = _method(tau=0.5, tau_mode="quantile").decide(safety, language)
    assert pattern(decisions) == "llbbbbss"
    with pytest.raises(ValidationError, match="0 … 1"):
        _method(tau=1.5, tau_mode="quantile")


def test_continuous_rule_weighs_every_block() -> None:
    decisions = _method(rule="continuous").decide(_layers([1, 3, 0]), _layers([3, 1, 0]))
    assert [d.safety_weight for d in decisions] == pytest.approx([0.25, 0.75, 0.0])
    assert not any(d.borderline for d in decisions)


def test_budget_takes_the_largest_scores_first() -> None:
    safety, language = _layers([1, 4, 3, 1, 1]), _layers([3, 1, 1, 3, 2])
    assert pattern(_method().decide(safety, language)) == "lssll"
    assert pattern(_method(max_safety_blocks=1).decide(safety, language)) == "lslll"
    assert pattern(_method(max_safety_blocks=0).decide(safety, language)) == "lllll"
    with pytest.raises(ValidationError, match="threshold"):
        _method(max_safety_blocks=1, rule="continuous")


def test_decisions_near_the_threshold_are_borderline() -> None:
    safety, language = _layers([1.0, 1.0022, 0.9978]), _layers([1.0, 1.0, 1.0])
    decisions = _method(tau=0.0006).decide(safety, language)
    assert [d.borderline for d in decisions] == [False, True, True]
    assert not any(d.borderline for d in _method(tau=0.0006, borderline=0).decide(safety, language))


@pytest.mark.parametrize(
    "options",
    [
        {"norms": "blend"},
        {"normalise": "per_family"},
        {"safety": "base"},
        {"language": "safety"},
        {"safety_weight": 1.1},
        {"tau": -0.1},
        {"tau": float("nan")},
        {"granularity": "head"},
        {"taau": 0.1},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LayerSwap(**{"base": "base", "safety": "safety", "language": "sw", "granularity": "layer", **options})
