"""`arithmetic: authors` against the plain reference of the published rule, on every tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polysafe.checkpoint.opened import Sources
from polysafe.methods.layer_swap import LayerSwap
from tests.methods.conftest import Opener
from tests.methods.helpers import differing, pattern, result, state
from tests.methods.reference_swap import reference_swap
from tests.models import bowl, bump, layer_of, trio

_MODULES = {"attention": "self_attn", "mlp": "mlp", None: ""}


@pytest.mark.fault(7, "bytes that an independent computation gives")
@pytest.mark.parametrize("granularity", ["layer", "module"])
@pytest.mark.parametrize(
    ("family", "layers", "tied"),
    [
        ("llama", 32, False),
        ("llama", 8, True),
        ("qwen2", 8, None),
        ("qwen3", 8, None),
        ("gemma2", 8, None),
        ("phi3", 8, None),
        ("mixtral", 4, None),
        ("qwen3_moe", 4, None),
    ],
)
def test_result_is_bit_equal_to_the_published_rule(
    tmp_path: Path, opened: Opener, family: str, layers: int, tied: bool | None, granularity: str
) -> None:
    sources = opened(trio(tmp_path, family, layers=layers, tied=tied, seed=layers).paths)
    for tau, alpha in [(0.001, 0.5), (0.004, 0.3)]:
        edit = LayerSwap(
            base="base",
            safety="safety",
            language="sw",
            granularity=granularity,
            tau=tau,
            safety_weight=alpha,
            arithmetic="authors",
        ).fit(sources)
        states = (state(sources, name) for name in ("base", "safety", "sw"))
        expected, decisions = reference_swap(*states, granularity=granularity, tau=tau, alpha=alpha)
        assert differing(result(edit, sources), expected) == []
        scored = [d for d in edit.provenance[0].decisions if d.layer is not None]
        assert {(d.layer, _MODULES[d.module]): d.choice for d in scored} == decisions


def test_all_three_decisions_occur_in_the_layer_trio(tmp_path: Path, opened: Opener) -> None:
    """Bit equality above would mean little if every block were treated alike."""
    sources = opened(trio(tmp_path, layers=32, seed=32).paths)
    for granularity in ("layer", "module"):
        edit = LayerSwap(base="base", safety="safety", language="sw", granularity=granularity).fit(sources)
        assert set(pattern(edit.provenance[0].decisions)) == {"s", "l", "b"}


@pytest.mark.parametrize("granularity", ["layer", "module"])
def test_float32_checkpoints_are_cast_before_anything_else(tmp_path: Path, opened: Opener, granularity: str) -> None:
    sources = opened(trio(tmp_path, layers=8, dtype=torch.float32).paths)
    method = LayerSwap(base="base", safety="safety", language="sw", granularity=granularity, arithmetic="authors")
    expected, _ = reference_swap(*(state(sources, name) for name in ("base", "safety", "sw")), granularity=granularity)
    assert differing(result(method.fit(sources), sources), expected) == []


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**20),
    height=st.floats(0.0, 0.6),
    tau=st.sampled_from([0.0, 0.001, 0.005, 0.02]),
    alpha=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    granularity=st.sampled_from(["layer", "module"]),
)
def test_random_trios(
    tmp_path_factory: pytest.TempPathFactory,
    opened: Opener,
    seed: int,
    height: float,
    tau: float,
    alpha: float,
    granularity: str,
) -> None:
    safety, language = bump(6, height=height), bowl(6, height=0.3)
    folder = tmp_path_factory.mktemp("t")
    sources = opened(trio(folder, "qwen2", seed=seed, layers=6, safety=safety, language=language).paths)
    edit = LayerSwap(
        base="base",
        safety="safety",
        language="sw",
        granularity=granularity,
        tau=tau,
        safety_weight=alpha,
        arithmetic="authors",
    ).fit(sources)
    states = (state(sources, name) for name in ("base", "safety", "sw"))
    expected, _ = reference_swap(*states, granularity=granularity, tau=tau, alpha=alpha)
    assert differing(result(edit, sources), expected) == []


def test_result_is_bfloat16_with_the_tokenizer_of_the_base(llama: Sources) -> None:
    method = LayerSwap(base="base", safety="safety", language="sw", arithmetic="authors")
    assert method.fit(llama).dtype == "BF16"
    assert method.donor() == "base"
    assert LayerSwap(base="base", safety="safety", language="sw").donor() == "sw"


@pytest.mark.parametrize("granularity", ["layer", "module"])
def test_wide_and_published_norms_decide_alike_where_it_is_not_close(
    tmp_path: Path, opened: Opener, granularity: str
) -> None:
    sources = opened(trio(tmp_path, layers=32, seed=5).paths)
    common = {"base": "base", "safety": "safety", "language": "sw", "granularity": granularity}
    wide = LayerSwap(**common).fit(sources).provenance[0]
    published = LayerSwap(**common, arithmetic="authors").fit(sources).provenance[0]
    turned = [
        (a, b)
        for a, b in zip(wide.decisions, published.decisions, strict=True)
        if a.choice != b.choice and a.score is not None
    ]
    assert all(a.borderline for a, _ in turned)
    errors = [
        abs(a.score - b.score) for a, b in zip(wide.decisions, published.decisions, strict=True) if a.score and b.score
    ]
    assert 0 < max(errors) < 1.5e-4


def test_published_program_does_not_see_fused_projections(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, "phi3", layers=4).paths)
    provenance = LayerSwap(base="base", safety="safety", language="sw", arithmetic="authors").fit(sources).provenance[0]
    scored = provenance.evidence["relative_update_norms"]["safety"]
    assert {name.split(".")[-2] for name in scored} == {"o_proj", "down_proj"}
    assert any("8 projections are not scored" in warning for warning in provenance.warnings)
    assert layer_of(next(iter(scored))) == 0
