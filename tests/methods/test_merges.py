"""The baselines: their identities, and their formulas against plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from polysafe.checkpoint.opened import Sources
from polysafe.errors import CheckpointError, MismatchError
from polysafe.methods.base import Method
from polysafe.methods.layer_swap import LayerSwap
from polysafe.methods.merges import DareMerge, Soup, TaskArithmetic, TiesMerge
from tests.methods.conftest import Opener
from tests.methods.helpers import State, differing, result, same_bits, state
from tests.models import TinyModel, bowl, bump, layer_of, tiny_model, trio

EXPERTS = ("safety", "sw")
ALL = (Soup, TaskArithmetic, TiesMerge, DareMerge)


def _task(method: type[Method], **options: Any) -> Method:
    return method.model_validate({"base": "base", "experts": EXPERTS, **options})


def _vectors(sources: Sources) -> tuple[State, dict[str, State]]:
    """The base and the task vectors, in float64."""
    base = {name: tensor.double() for name, tensor in state(sources, "base").items()}
    return base, {e: {n: t.double() - base[n] for n, t in state(sources, e).items()} for e in EXPERTS}


def _equal(merged: State, expected: State) -> bool:
    return differing(merged, {name: tensor.to(torch.bfloat16) for name, tensor in expected.items()}) == []


def test_soup_is_a_layer_swap_in_which_everything_blends(llama: Sources) -> None:
    soup = Soup(weights={"safety": 0.5, "sw": 0.5}).fit(llama)
    blended = LayerSwap(base="base", safety="safety", language="sw", granularity="layer", tau=10).fit(llama)
    assert soup.steps == blended.steps
    assert differing(result(soup, llama), result(blended, llama)) == []


def test_soup_is_the_weighted_mean(llama: Sources) -> None:
    merged = result(Soup(weights={"base": 0.2, "safety": 0.5, "sw": 0.3}).fit(llama), llama)
    base, safety, language = (state(llama, name) for name in ("base", "safety", "sw"))
    expected = {n: 0.2 * base[n].double() + 0.5 * safety[n].double() + 0.3 * language[n].double() for n in base}
    assert _equal(merged, expected)


def test_weights_of_a_soup_are_a_mean() -> None:
    with pytest.raises(ValidationError, match=r"add up to 1, not to 0\.9"):
        Soup(weights={"a": 0.5, "b": 0.4})
    with pytest.raises(ValidationError):
        Soup(weights={})


@pytest.mark.parametrize("method", [TaskArithmetic, TiesMerge, DareMerge])
def test_scale_zero_is_the_base(llama: Sources, method: type[Method]) -> None:
    merged = result(_task(method, scale=0.0).fit(llama), llama)
    assert differing(merged, state(llama, "base")) == []


@pytest.mark.parametrize("expert", EXPERTS)
def test_one_expert_at_scale_one_is_that_expert(llama: Sources, expert: str) -> None:
    edit = TaskArithmetic(base="base", experts=(expert,), scale=1.0, start_from="sw").fit(llama)
    assert differing(result(edit, llama), state(llama, expert)) == []
    assert all(step.op == "copy" for steps in edit.steps.values() for step in steps)


def test_task_arithmetic_adds_scaled_task_vectors(llama: Sources) -> None:
    base, vectors = _vectors(llama)
    edit = _task(TaskArithmetic, scale={"safety": 0.75, "sw": 0.5}).fit(llama)
    expected = {n: base[n] + 0.75 * vectors["safety"][n] + 0.5 * vectors["sw"][n] for n in base}
    assert _equal(result(edit, llama), expected)
    with pytest.raises(ValidationError, match="names exactly the experts"):
        _task(TaskArithmetic, scale={"safety": 0.75})


def _reference_ties(base: State, vectors: dict[str, State], density: float, scale: float) -> State:
    """TIES on whole tensors: trim per tensor, elect, average what agrees."""
    merged = {}
    for name, origin in base.items():
        trimmed = []
        for vector in vectors.values():
            flat = vector[name].flatten()
            kept = max(1, round(density * flat.numel()))
            smallest = flat.abs().sort(descending=True).values[kept - 1]
            trimmed.append(torch.where(flat.abs() >= smallest, flat, 0.0))
        stack = torch.stack(trimmed)
        sign = stack.sum(0).sign()
        agrees = (stack.sign() == sign) & (stack != 0)
        mean = torch.where(agrees, stack, 0.0).sum(0) / agrees.sum(0).clamp(min=1)
        merged[name] = origin + scale * mean.view(origin.shape)
    return merged


@pytest.mark.parametrize("density", [0.05, 0.2, 0.7, 1.0])
def test_ties_is_trim_elect_and_disjoint_mean(llama: Sources, density: float) -> None:
    base, vectors = _vectors(llama)
    edit = _task(TiesMerge, density=density, scale=0.75).fit(llama)
    assert _equal(result(edit, llama), _reference_ties(base, vectors, density, 0.75))


def test_ties_of_equal_experts_is_that_expert(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model()
    expert = base.updated(1, bump(4))
    models = {"base": base, "safety": expert, "sw": expert}
    sources = opened({name: model.save(tmp_path / name) for name, model in models.items()})
    edit = _task(TiesMerge, density=1.0, scale=1.0).fit(sources)
    assert differing(result(edit, sources), expert.tensors) == []


def test_ties_can_trim_the_model_as_a_whole(llama: Sources) -> None:
    edit = _task(TiesMerge, trim="model", density=0.1).fit(llama)
    rules = {steps[0].rule.thresholds["sw"] for steps in edit.steps.values()}  # type: ignore[union-attr]
    assert len(rules) == 1
    _, vectors = _vectors(llama)
    magnitudes = torch.cat([t.flatten().abs() for t in vectors["sw"].values()])
    kept = int((magnitudes >= rules.pop()).sum())
    assert kept >= round(0.1 * magnitudes.numel())
    assert kept - round(0.1 * magnitudes.numel()) < 0.01 * magnitudes.numel()  # what equals the last one kept


@pytest.mark.parametrize("then", ["sum", "ties"])
def test_dare_without_dropping_is_the_merge_it_thins(llama: Sources, then: str) -> None:
    thinned = result(_task(DareMerge, drop=0.0, then=then, scale=0.5).fit(llama), llama)
    plain = _task(TaskArithmetic, scale=0.5) if then == "sum" else _task(TiesMerge, density=1.0, scale=0.5)
    assert differing(thinned, result(plain.fit(llama), llama)) == []


def test_dare_is_reproducible_and_depends_on_its_seed_only(llama: Sources) -> None:
    first, again, other = (_task(DareMerge, drop=0.7, seed=seed).fit(llama) for seed in (1, 1, 2))
    reversed_experts = DareMerge(base="base", experts=("sw", "safety"), drop=0.7, seed=1, start_from="sw").fit(llama)
    merged = result(first, llama)
    assert first == again
    assert differing(merged, result(reversed_experts, llama)) == []
    assert len(differing(merged, result(other, llama))) == len(merged)


def test_dare_drops_the_asked_share_and_rescales(tmp_path: Path, opened: Opener) -> None:
    there = trio(tmp_path, layers=8, dtype=torch.float32)
    sources = opened(there.paths)
    base, vectors = _vectors(sources)
    merged = result(DareMerge(base="base", experts=("sw",), drop=0.75, scale=1.0).fit(sources), sources)
    dropped = total = 0
    for name, tensor in merged.items():
        update, full = tensor.double() - base[name], vectors["sw"][name]
        gone = update == 0
        assert torch.allclose(update[~gone], 4 * full[~gone], rtol=1e-3, atol=1e-6)
        dropped, total = dropped + int(gone.sum()), total + gone.numel()
    assert dropped / total == pytest.approx(0.75, abs=0.02)


def _reference_election(base: State, vectors: dict[str, State], weights: dict[str, float], average: str) -> State:
    """Election and mean of weighted task vectors on whole tensors; a sum of zero elects plus."""
    merged = {}
    factors = torch.tensor([weights[expert] for expert in EXPERTS], dtype=torch.float64)
    for name, origin in base.items():
        stack = torch.stack([vectors[expert][name] * weights[expert] for expert in EXPERTS])
        sign = torch.where(stack.sum(0) >= 0, 1.0, -1.0)
        agrees = stack.sign() == sign
        shares = torch.where(agrees, factors.view(-1, *[1] * origin.ndim), 0.0).sum(0)
        total = torch.where(agrees, stack, 0.0).sum(0)
        merged[name] = origin + (total / torch.where(shares == 0, 1.0, shares) if average == "weight" else total)
    return merged


@pytest.mark.parametrize("average", ["weight", "sum"])
@pytest.mark.parametrize("method", [TiesMerge, DareMerge])
def test_experts_that_count_differently(llama: Sources, method: type[Method], average: str) -> None:
    weights = {"safety": 0.75, "sw": 0.5}
    untrimmed = {"density": 1.0} if method is TiesMerge else {"drop": 0.0, "then": "ties"}
    merged = result(_task(method, weights=weights, average=average, scale=1.0, **untrimmed).fit(llama), llama)
    base, vectors = _vectors(llama)
    assert _equal(merged, _reference_election(base, vectors, weights, average))
    half = result(_task(method, weights=weights, average=average, scale=0.5, **untrimmed).fit(llama), llama)
    expected = _reference_election(base, vectors, weights, average)
    assert _equal(half, {name: base[name] + 0.5 * (expected[name] - base[name]) for name in base})


def test_equal_weights_cancel_in_a_weighted_mean(llama: Sources) -> None:
    alike = {"density": 0.3, "average": "weight"}
    doubled = _task(TiesMerge, weights={"safety": 2.0, "sw": 2.0}, **alike).fit(llama)
    assert differing(result(doubled, llama), result(_task(TiesMerge, **alike).fit(llama), llama)) == []


def test_a_sum_of_zero_elects_plus_only_where_experts_have_shares(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model(dtype=torch.float32)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in base.tensors.items()}
    models = {"base": zeros, "safety": base.tensors, "sw": {name: -tensor for name, tensor in base.tensors.items()}}
    sources = opened({name: TinyModel(made, base.config).save(tmp_path / name) for name, made in models.items()})
    published = result(_task(TiesMerge, density=1.0).fit(sources), sources)
    assert not any(tensor.any() for tensor in published.values())
    plus = result(_task(TiesMerge, density=1.0, average="weight").fit(sources), sources)
    assert differing(plus, {name: tensor.abs() for name, tensor in base.tensors.items()}) == []


def test_density_of_each_expert_and_rounded_down(llama: Sources) -> None:
    density = {"safety": 0.3, "sw": 0.11}
    edit = _task(TiesMerge, density=density, average="weight").fit(llama)
    rule = edit.steps["model.norm.weight"][0].rule  # type: ignore[union-attr]
    _, vectors = _vectors(llama)
    for expert, share in density.items():
        magnitudes = vectors[expert]["model.norm.weight"].abs()
        kept = int(share * 16)  # 4 and 1, where rounding says 5 and 2
        threshold = torch.tensor(rule.thresholds[expert], dtype=torch.float32)  # type: ignore[union-attr]
        assert magnitudes.sort(descending=True).values[kept - 1] == threshold


def test_each_expert_is_thinned_by_its_own_share(tmp_path: Path, opened: Opener) -> None:
    sources = opened(trio(tmp_path, layers=8, dtype=torch.float32).paths)
    merged = result(_task(DareMerge, drop={"safety": 0.0, "sw": 0.75}, scale=1.0).fit(sources), sources)
    base, vectors = _vectors(sources)
    gone = total = 0
    for name, tensor in merged.items():
        rest = tensor.double() - base[name] - vectors["safety"][name]
        gone += int((rest.abs() < 1e-6 * base[name].abs().max()).sum())
        total += rest.numel()
    assert gone / total == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (TiesMerge, {"density": {"safety": 0.5}}),
        (TiesMerge, {"weights": {"safety": 0.5}}),
        (DareMerge, {"drop": {"safety": 0.5, "base": 0.5}}),
        (DareMerge, {"average": "weight"}),
    ],
)
def test_options_of_each_expert_name_all_of_them(method: type[Method], options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _task(method, **options)


@pytest.mark.parametrize("restrict_to", ["layers", "projections"])
@pytest.mark.parametrize("method", ALL)
def test_restriction(llama: Sources, method: type[Method], restrict_to: str) -> None:
    options = {"weights": {"safety": 0.5, "sw": 0.5}} if method is Soup else {"base": "base", "experts": EXPERTS}
    edit = method.model_validate({**options, "restrict_to": restrict_to}).fit(llama)
    names = [name for name in state(llama, "sw") if layer_of(name) is not None]
    expected = names if restrict_to == "layers" else [name for name in names if "proj" in name]
    assert set(edit.steps) == set(expected)


def test_start_of_a_merge(llama: Sources) -> None:
    assert _task(TaskArithmetic).start == "sw"
    other = _task(TaskArithmetic, start_from="base")
    assert (other.start, other.donor(), other.uses) == ("base", "base", ("base", "safety", "sw"))
    merged = [result(method.fit(llama), llama) for method in (_task(TaskArithmetic), other)]
    assert differing(*merged) == []


def test_one_source_twice_is_refused() -> None:
    for experts in (("sw", "sw"), ("base", "sw"), ()):
        with pytest.raises(ValidationError):
            _task(TaskArithmetic, experts=experts)


def test_embeddings_of_different_vocabularies_are_not_merged(tmp_path: Path, opened: Opener) -> None:
    small, wide = tiny_model(), tiny_model(vocab=48)
    sources = opened({"safety": small.save(tmp_path / "s"), "sw": wide.updated(1, bowl(4)).save(tmp_path / "l")})
    soup = Soup(weights={"safety": 0.5, "sw": 0.5})
    with pytest.raises(MismatchError, match="restrict_to: layers"):
        soup.fit(sources)
    merged = result(soup.model_copy(update={"restrict_to": "layers"}).fit(sources), sources)
    assert same_bits(merged["lm_head.weight"], state(sources, "sw")["lm_head.weight"])


def test_trimming_refuses_values_that_are_not_finite(tmp_path: Path, opened: Opener) -> None:
    base = tiny_model()
    models = {"base": base, "safety": base.updated(1, bump(4)), "sw": base.updated(2, bowl(4))}
    models["sw"].tensors["model.norm.weight"][0] = float("nan")
    sources = opened({name: model.save(tmp_path / name) for name, model in models.items()})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight of 'base' or 'sw'"):
        _task(TiesMerge).fit(sources)
