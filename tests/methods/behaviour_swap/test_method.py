"""Swapping by behaviour on the packaged toy family and on tiny models: what it takes, tells, and refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from polysafe.checkpoint.opened import Sources, open_source
from polysafe.edits.edit import Edit
from polysafe.edits.explain import explain
from polysafe.edits.operations import Copy
from polysafe.errors import DataError, MismatchError, RecipeError
from polysafe.evaluate.disjoint import check_disjoint
from polysafe.methods.base import Support
from polysafe.methods.behaviour_swap import BehaviourSwap
from polysafe.methods.layer_swap import LayerSwap
from polysafe.methods.registry import resolve
from polysafe.organism.own import packaged_organism
from polysafe.organism.packaged import packaged_family
from polysafe.organism.steering import refusal_margins
from polysafe.organism.tokenizer import vocabulary
from polysafe.probe.behaviour import Behaviours, refusal_question
from polysafe.probe.model import edited, load_model
from polysafe.probe.render import load_tokenizer
from polysafe.recipe.recipe import make_recipe
from polysafe.workflows.run import run_recipe
from tests.methods.conftest import Opener
from tests.methods.helpers import differing, result, state
from tests.models import trio

EXPERT = "qad"


def method(**options: Any) -> BehaviourSwap:
    fields = {
        "safety": "safety", "language": EXPERT, "languages": (EXPERT,), "anchors": "organism", "granularity": "layer",
        "prompts": 16, "max_tokens": 10, "over_refusal": 0.2, "benign_loss": 0.2,
    }  # fmt: skip
    return BehaviourSwap.model_validate({**fields, **options})


@pytest.fixture(scope="module")
def toy() -> Iterator[Sources]:
    torch.set_num_threads(1)
    with ExitStack() as stack:
        members = packaged_family().members
        yield {name: stack.enter_context(open_source(members[name], name)) for name in ("base", "safety", EXPERT)}


@pytest.fixture(scope="module")
def edit(toy: Sources) -> Edit:
    return method(base="base", budget=3).fit(toy)


def test_the_blocks_that_make_it_refuse_are_taken(toy: Sources, edit: Edit) -> None:
    evidence = edit.provenance[0].evidence
    taken = evidence["chosen"]["blocks"]
    assert len(taken) == 3
    assert taken == list(evidence["ranking"])[:3]
    assert differing(result(edit, toy), {**state(toy, EXPERT), **_of(toy, taken)}) == []
    decisions = edit.provenance[0].decisions
    assert {each.block for each in decisions if each.choice == "safety"} == set(taken)
    assert all(each.score == evidence["effects"][each.block]["gain"] for each in decisions)
    assert all({"gain_low", "n", f"benign_{EXPERT}", "movement"} <= each.detail.keys() for each in decisions)
    assert evidence["held_out"]["low"] > 0
    assert explain(edit)["methods"][0]["ranking"] == evidence["ranking"]


def _of(toy: Sources, taken: list[str]) -> dict[str, torch.Tensor]:
    places = tuple(f"model.{name}." for name in taken)
    return {name: tensor for name, tensor in state(toy, "safety").items() if name.startswith(places)}


def test_it_refuses_more_on_prompts_that_it_was_not_fitted_to(toy: Sources, edit: Edit) -> None:
    world, model = packaged_family().world, load_model(toy[EXPERT])

    def margins(network: Any) -> torch.Tensor:
        return refusal_margins(network, world, vocabulary(world), EXPERT, world.harmful("test"))

    before = margins(model.model)
    with edited(model, edit, {name: source.reader for name, source in toy.items()}) as changed:
        after = margins(changed.model)
    told = edit.provenance[0].evidence["held_out"]
    assert float((after - before).mean()) == pytest.approx(told["gain"], rel=0.2)
    assert torch.equal(before, margins(model.model))


def test_openings_of_the_toy_give_its_margins(toy: Sources) -> None:
    organism, model = packaged_organism(), load_model(toy[EXPERT])
    world = packaged_family().world
    pairs = world.harmful("validation")
    asked = [
        refusal_question(EXPERT, "refused", pair.item, world.request(EXPERT, pair), organism.openings(EXPERT))
        for pair in pairs
    ]
    network: Any = model.model
    expected = refusal_margins(network, world, vocabulary(world), EXPERT, pairs)
    found = Behaviours(model, load_tokenizer(toy[EXPERT].checkpoint.root), asked).read()[EXPERT, "refused"]
    assert [found[pair.item] for pair in pairs] == pytest.approx(expected.tolist(), abs=1e-4)


def test_movement_is_that_of_the_published_rule(toy: Sources, edit: Edit) -> None:
    published = LayerSwap(base="base", safety="safety", language=EXPERT, granularity="layer").fit(toy)
    expected = {each.block: each.score for each in published.provenance[0].decisions if each.layer is not None}
    agreement = edit.provenance[0].evidence["movement"]
    assert agreement["scores"] == pytest.approx(expected)
    assert agreement["n"] == 8
    assert -1 <= agreement["kendall_interval"][0] <= agreement["kendall"] <= agreement["kendall_interval"][1] <= 1


@pytest.mark.parametrize("limits", [{"benign_loss": 0.0, "over_refusal": 0.0}, {"safety": "twin"}])
def test_nothing_is_an_answer(toy: Sources, limits: dict[str, Any]) -> None:
    """Because everything costs something, or because the donor is the expert itself."""
    with open_source(packaged_family().members[EXPERT], "twin") as twin:
        taken = method(**limits).fit({**toy, "twin": twin})
    assert taken.touched == ()
    (provenance,) = taken.provenance
    assert provenance.evidence["chosen"] == {"blocks": []}
    assert {each.choice for each in provenance.decisions} == {"language"}
    assert any(each.startswith("no block is taken, and the language expert stays") for each in provenance.warnings)


def test_nothing_is_written_as_the_language_expert(tmp_path: Path) -> None:
    members = packaged_family().members
    content = {
        "polysafe": 1,
        "sources": {name: {"path": str(members[name])} for name in ("safety", EXPERT)},
        "edits": [method(benign_loss=0.0, over_refusal=0.0)],
        "output": {"path": str(tmp_path / "out")},
    }
    output = run_recipe(make_recipe(content)).output
    assert (output / "model.safetensors").read_bytes() == (members[EXPERT] / "model.safetensors").read_bytes()


def test_controls_take_as_many_blocks_elsewhere_and_ask_no_model(
    toy: Sources, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polysafe.methods.behaviour_swap.method.load_model", None)
    settled = method(base="base", budget=3).settled(edit)
    own = {each.block for each in edit.provenance[0].decisions if each.choice == "safety"}
    again = settled.fit(toy)
    assert again.steps == edit.steps
    assert settled.work(toy, Support()) == ()
    drawn = []
    for control in settled.controls(6):
        found = control.fit(toy)
        assert found.provenance[0].label.startswith("control.behaviour_swap.layer.random.")
        assert Counter(each.choice for each in found.provenance[0].decisions) == {"safety": 3, "language": 5}
        drawn.append({each.block for each in found.provenance[0].decisions if each.choice == "safety"})
    assert any(each != own for each in drawn)


@pytest.mark.parametrize("granularity", ["module", "projection"])
def test_smaller_blocks_and_gradients(toy: Sources, granularity: str) -> None:
    found = method(granularity=granularity, scores="first_order", prompts=4, budget=2).fit(toy)
    blocks = found.provenance[0].evidence["chosen"]["blocks"]
    assert len(blocks) == 2
    assert found.provenance[0].label == f"behaviour_swap.{granularity}.first_order"
    assert {op for ops in found.steps.values() for op in ops} == {Copy(source="safety")}
    assert all(any(name.startswith(f"model.layers.{b.split('.')[1]}.") for b in blocks) for name in found.touched)
    modules = {each.module for each in found.provenance[0].decisions}
    assert len(modules) == (2 if granularity == "module" else 7)


def test_an_interrupted_decision_goes_on(toy: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Any] = {}

    class Memory:
        def get(self, name: str) -> Any:
            return kept.get(name)

        def put(self, name: str, value: Any) -> None:
            kept[name] = value

    whole = method(prompts=4).fit_with(toy, Support(kept=Memory()))
    assert {"before", "layers.0", "layers.7"} <= kept.keys()
    (harmful,) = (items for _, about, items in kept["layers.3"] if about == "refused")
    harmful.update(dict.fromkeys(harmful, 99.0))
    changed = method(prompts=4).fit_with(toy, Support(kept=Memory()))
    assert changed.provenance[0].evidence["effects"]["layers.3"]["gain"] == pytest.approx(99.0)
    assert whole.provenance[0].evidence["effects"]["layers.3"]["gain"] < 50


def test_anchors_are_not_reported_on(tmp_path: Path) -> None:
    rows = "\n".join(f"row-{n},prompt number {n},frage nummer {n}" for n in range(8))
    for kind in ("harmful", "harmless"):
        (tmp_path / f"{kind}.csv").write_text(f"id,en,de\n{rows.replace('prompt', kind)}\n", encoding="utf-8")
    files = {kind: str(tmp_path / f"{kind}.csv") for kind in ("harmful", "harmless")}
    entry = method(languages=("de",), guarded=("en",), anchors=files)
    fitted = list(entry.fitted())
    assert {prompt.language for prompts in fitted for prompt in prompts.prompts} == {"de", "en"}
    with pytest.raises(DataError, match="would be reported on what it is fitted to"):
        list(check_disjoint([entry], [files["harmful"]], start=packaged_family().members[EXPERT]))


def test_a_block_that_is_named_must_exist(toy: Sources) -> None:
    with pytest.raises(RecipeError, match=r"there is no block 'layers\.8'"):
        method(blocks=("layers.8",)).fit(toy)
    with pytest.raises(RecipeError, match="there is no block"):
        method(granularity="module", blocks=("layers.1",)).fit(toy)
    named = method(granularity="module", blocks=("layers.1.mlp",)).fit(toy)
    assert all(name.startswith("model.layers.1.mlp.") for name in named.touched)


def test_experts_must_fit_together(toy: Sources, opened: Opener, tmp_path: Path) -> None:
    other = opened({"safety": trio(tmp_path, layers=2).safety})
    with pytest.raises(MismatchError, match="layers"):
        method().fit({**toy, **other})


def test_a_model_without_an_organism_needs_anchors(llama: Sources) -> None:
    with pytest.raises(DataError, match="not a member of the toy family"):
        method(language="sw", languages=("sw",)).fit(llama)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"safety": EXPERT}, "different sources"),
        ({"base": "safety"}, "different sources"),
        ({"guarded": (EXPERT,)}, "names something twice"),
        ({"path_points": 4}, "path_points goes with"),
        ({"search": "stepwise", "scores": "first_order"}, "stepwise"),
        ({"blocks": ("layers.1", "layers.1")}, "names something twice"),
        ({"held_out": 0.0}, "held_out"),
        ({"budget": 0}, "budget"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        method(**options)


def test_what_has_to_be_read_is_told(toy: Sources) -> None:
    (work,) = method().work(toy, Support())
    assert (work.model, work.prompts, work.languages, work.times) == (EXPERT, 48, 1, 2 + 8)
    assert method(search="stepwise", budget=2).work(toy, Support())[0].times == 2 + 8 + 7
    assert method(scores="first_order", path_points=4).work(toy, Support())[0].times == 2 + 4


def test_the_registry_knows_it() -> None:
    assert resolve("behaviour_swap.v1") is BehaviourSwap
