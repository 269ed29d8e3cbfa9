"""SLERP: its formula against plain torch, gradients and parts, and the tensors that have no arc between them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from polysafe.checkpoint.opened import Sources
from polysafe.errors import CheckpointError, RecipeError
from polysafe.methods.merges import Soup
from polysafe.methods.slerp import Slerp, cosines, slerp_weights
from tests.methods.conftest import Opener
from tests.methods.helpers import State, differing, result, state
from tests.models import TinyModel, bump, layer_of, tiny_model

PARTS = [
    {"filter": "self_attn", "value": [0.0, 0.5, 0.3]},
    {"filter": "mlp", "value": [1.0, 0.2]},
    {"value": [0.1, 0.9]},
]


def _slerp(**options: Any) -> Slerp:
    return Slerp.model_validate({"first": "safety", "second": "sw", **options})


def _arc(one: torch.Tensor, other: torch.Tensor, t: float) -> torch.Tensor:
    """Shoemake's formula on whole tensors in float64."""
    a, b = one.double(), other.double()
    cosine = float((a * b).sum() / a.norm() / b.norm())
    if cosine > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def _expected(sources: Sources, t: Any) -> State:
    first, second = (state(sources, name) for name in ("safety", "sw"))
    return {name: _arc(first[name], second[name], t(name)).to(torch.bfloat16) for name in first}


@pytest.mark.parametrize("t", [0.25, 0.5, 0.9])
def test_slerp_is_shoemakes_formula(llama: Sources, t: float) -> None:
    merged = result(_slerp(t=t).fit(llama), llama)
    assert differing(merged, _expected(llama, lambda _: t)) == []
    soup = result(Soup(weights={"safety": 1 - t, "sw": t}).fit(llama), llama)
    assert differing(merged, soup)  # an arc is no straight line


@pytest.mark.parametrize(("t", "source"), [(0.0, "safety"), (1.0, "sw")])
def test_the_ends_are_the_models(llama: Sources, t: float, source: str) -> None:
    edit = _slerp(t=t).fit(llama)
    assert differing(result(edit, llama), state(llama, source)) == []
    assert all(step.op == "copy" for steps in edit.steps.values() for step in steps)


def test_a_gradient_goes_through_its_values_layer_by_layer(llama: Sources) -> None:
    def t(name: str) -> float:
        place = (layer_of(name) or 0) / 7
        if "self_attn" in name:
            return float(torch.tensor(place * 2).double()) * 0.5 if place <= 0.5 else 0.5 - 0.2 * (2 * place - 1)
        return 1.0 - 0.8 * place if "mlp" in name else 0.1 + 0.8 * place

    merged = result(_slerp(t=PARTS).fit(llama), llama)
    expected = _expected(llama, t)
    apart = {name: float((merged[name].double() - expected[name].double()).abs().max()) for name in merged}
    assert max(apart.values()) <= 2**-8  # a step of bfloat16 at a norm's 1: places are divided in another order here
    assert _slerp(t=[0.2, 0.8]).share("lm_head.weight", None, 8) == 0.2
    shares = [_slerp(t=[0.0, 1.0, 0.0]).share("x", layer, 5) for layer in range(5)]
    assert shares == [0.0, 0.5, 1.0, 0.5, 0.0]


def test_a_model_of_one_layer_has_the_first_value_of_a_gradient() -> None:
    assert _slerp(t=[0.3, 0.8]).share("model.layers.0.mlp.up_proj.weight", 0, 1) == 0.3


def test_almost_parallel_tensors_are_interpolated_linearly() -> None:
    assert slerp_weights(0.9996, 0.3) == (0.7, 0.3)
    assert slerp_weights(-1.0, 0.3) == (0.7, 0.3)
    near, far = slerp_weights(0.9994, 0.3)
    assert near + far > 1
    assert slerp_weights(0.0, 0.5) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))


def test_a_tensor_of_zeros_is_at_a_right_angle(tmp_path: Path, opened: Opener) -> None:
    sources = opened(_with(tmp_path, torch.zeros))
    merged = result(_slerp(t=0.5).fit(sources), sources)["model.norm.weight"]
    other = state(sources, "sw")["model.norm.weight"]
    assert torch.equal(merged, (math.sqrt(0.5) * other.double()).to(torch.bfloat16))


def test_angles_are_the_same_in_blocks(llama: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = llama["safety"], llama["sw"]
    names = first.reader.names()
    whole = cosines(first, second, names)
    monkeypatch.setattr("polysafe.methods.slerp.row_blocks", lambda spec: [(i, i + 1) for i in range(spec.rows)])
    monkeypatch.setattr("polysafe.methods.scores.memory.recall", lambda *_: None)
    assert cosines(first, second, names) == pytest.approx(whole, rel=1e-12)


def test_what_is_read_to_decide_is_told(llama: Sources) -> None:
    told = [spec.name for spec in _slerp().reads(llama)]
    assert sorted(told) == sorted(2 * [*llama["safety"].reader.names()])


def test_values_that_are_not_finite_are_refused(tmp_path: Path, opened: Opener) -> None:
    sources = opened(_with(tmp_path, lambda shape: torch.full(shape, math.nan)))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight of 'safety' or 'sw' holds NaN"):
        _slerp().fit(sources)


def test_another_number_of_layers_is_refused(llama: Sources) -> None:
    assert _slerp(layers=8).fit(llama).steps == _slerp().fit(llama).steps
    with pytest.raises(RecipeError, match=r"`layers: 6`, but 'safety' has 8"):
        _slerp(layers=6).fit(llama)


@pytest.mark.parametrize(
    "options",
    [
        {"second": "safety"},
        {"t": 1.5},
        {"t": [0.5]},
        {"t": [{"filter": "mlp", "value": 0.5}]},
        {"t": [{"value": 0.5}, {"filter": "mlp", "value": 0.5}]},
        {"t": [{"value": 0.5}, {"value": 0.5}]},
    ],
)
def test_options_that_say_nothing_sound_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _slerp(**options)


def _with(folder: Path, norm: Any) -> dict[str, Path]:
    """Two models, the final norm of the first made by `norm` from its shape."""
    base = tiny_model()
    tensors = base.tensors | {"model.norm.weight": norm(base.tensors["model.norm.weight"].shape).to(torch.bfloat16)}
    models = {"safety": TinyModel(tensors, base.config), "sw": base.updated(1, bump(4))}
    return {name: model.save(folder / name) for name, model in models.items()}
