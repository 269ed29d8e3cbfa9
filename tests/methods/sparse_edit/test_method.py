"""Sparse weight editing on tiny models: what it changes, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.opened import Sources
from polysafe.edits.edit import Edit
from polysafe.edits.reader import EditedReader
from polysafe.errors import ArchitectureError, RecipeError
from polysafe.probe.capture import capture
from polysafe.probe.model import LoadedModel, edited, load_model
from polysafe.probe.render import RenderedPrompts
from polysafe.probe.residual import Residuals
from polysafe.probe.stores import Rows
from tests.methods.anchors import write_anchors
from tests.methods.conftest import Opener
from tests.methods.helpers import differing, judged_by, result, same_bits, state
from tests.methods.sparse_edit.tiny import LAYERS, FakeValidator, entry, evidence, gate, prompts_of, touched
from tests.models import tiny_model

# What it changes.


def test_only_the_chosen_rows_of_gate_and_up_change(sources: Sources, anchors: object) -> None:
    edit = entry(anchors).fit(sources)
    before, after = state(sources, "model"), result(edit, sources)
    names = [gate(2), gate(2).replace("gate", "up")]
    assert differing(before, after) == names
    for name in names:
        operation = touched(edit)[name]
        rows = torch.zeros(before[name].shape[0], dtype=torch.bool)
        rows[operation.rows] = True
        assert 0 < int(rows.sum()) <= 0.3 * len(rows)
        assert same_bits(before[name][~rows], after[name][~rows])
        assert bool((before[name][rows] != after[name][rows]).any(1).all())
        assert operation.a.shape[1] == operation.b.shape[1] <= 4
    chosen = [part["units"] for part in evidence(edit)["layers"]["2"]["projections"].values()]
    assert [operation.rows.tolist() for operation in touched(edit).values()] == chosen


def test_undo_restores_every_bit(sources: Sources, anchors: object) -> None:
    edit = entry(anchors).fit(sources)
    reader = EditedReader(edit, {"model": sources["model"].reader})
    back = EditedReader(edit.undo(), {"edited": reader, "original": sources["model"].reader})
    restored = {name: back.whole(name).clone() for name in back.names()}
    assert differing(restored, state(sources, "model")) == []


def test_saving_and_loading_changes_nothing(sources: Sources, anchors: object, tmp_path: Path) -> None:
    edit = entry(anchors).fit(sources)
    edit.save(tmp_path)
    loaded = Edit.load(tmp_path)
    assert loaded.sha256 == edit.sha256
    assert differing(result(loaded, sources), result(edit, sources)) == []


def test_fitting_twice_gives_the_same_edit(sources: Sources, anchors: object) -> None:
    assert entry(anchors).fit(sources).sha256 == entry(anchors).fit(sources).sha256


def outputs(model: LoadedModel, prompts: RenderedPrompts, layer: int) -> torch.Tensor:
    """Outputs of the gate projection at the last token, recorded as the input of what follows it."""
    seen: list[torch.Tensor] = []
    name = gate(layer).removesuffix(".weight")
    handle = model.model.get_submodule(name).register_forward_hook(lambda _m, _a, out: seen.append(out.detach()))
    with torch.no_grad():
        for tokens in prompts.tokens:
            model.model(torch.tensor([tokens]), use_cache=False)
    handle.remove()
    return torch.stack([out[0, -1] for out in seen])


def test_pooled_outputs_are_linear_in_pooled_inputs_before_and_after(sources: Sources, anchors: object) -> None:
    edit = entry(anchors, target_gain=2.0).fit(sources)
    loaded = load_model(sources["model"])
    prompts = prompts_of(sources, anchors, "aa")
    inputs = capture(loaded, prompts, [2], into=Rows())[2].to(torch.float64)
    weight = state(sources, "model")[gate(2)].to(torch.float64)
    torch.testing.assert_close(outputs(loaded, prompts, 2).to(torch.float64), inputs @ weight.T, rtol=1e-5, atol=1e-5)
    operation = touched(edit)[gate(2)]
    weight[operation.rows] += (operation.a @ operation.b.T).to(torch.float64)
    with edited(loaded, edit, {"model": sources["model"].reader}) as model:
        found = outputs(model, prompts, 2).to(torch.float64)
    torch.testing.assert_close(found, inputs @ weight.T, rtol=1e-5, atol=1e-5)


def test_harmful_inputs_move_to_the_pivot_and_harmless_ones_stay(sources: Sources, anchors: object) -> None:
    found = evidence(entry(anchors, rank=None).fit(sources))["layers"]["2"]
    assert set(found["gap_closed"]) == {"aa", "bb"}
    assert all(closed["anchors"] > 0.3 for closed in found["gap_closed"].values())
    free = evidence(entry(anchors, rank=None, utility="none").fit(sources))["layers"]["2"]
    assert max(found["drift"].values()) < max(free["drift"].values())
    for language in ("aa", "bb"):
        assert found["gap_closed"][language]["anchors"] < free["gap_closed"][language]["anchors"]


def test_the_pivot_fed_as_another_language_gives_no_edit(sources: Sources, tmp_path: Path) -> None:
    edit = entry(write_anchors(tmp_path, same=True)).fit(sources)
    assert differing(state(sources, "model"), result(edit, sources)) == []
    assert all(operation.a.shape[1] == 0 for operation in touched(edit).values())


def test_batches_do_not_matter(sources: Sources, anchors: object) -> None:
    one, eight = (touched(entry(anchors, batch_size=size).fit(sources)) for size in (1, 8))
    for name, operation in one.items():
        assert torch.equal(operation.rows, eight[name].rows)
        torch.testing.assert_close(operation.a @ operation.b.T, eight[name].a @ eight[name].b.T, rtol=1e-3, atol=1e-5)


# Several layers.


def test_how_it_was_computed_does_not_make_another_edit(sources: Sources, anchors: object) -> None:
    one, other = (entry(anchors, **how).fit(sources) for how in ({}, {"device": "cpu", "batch_size": 16}))
    assert one.sha256 == other.sha256
    assert entry(anchors, batch_size=3).fit(sources).provenance[0].options == one.provenance[0].options


def test_later_layers_see_the_edit_but_keep_neurons_and_targets_of_the_original(
    sources: Sources, anchors: object
) -> None:
    options = {"target_gain": 3.0, "held_out": 0.0}
    alone = {layer: entry(anchors, layers=(layer,), **options).fit(sources) for layer in (1, 3)}
    both = entry(anchors, layers=(3, 1), **options).fit(sources)
    assert differing(result(alone[1], sources), result(both, sources)) == [
        gate(3),
        gate(3).replace("gate", "up"),
    ]
    first, second = touched(alone[3])[gate(3)], touched(both)[gate(3)]
    assert torch.equal(first.rows, second.rows)
    assert not torch.allclose(first.a @ first.b.T, second.a @ second.b.T, rtol=1e-3)
    # the cost that is left says which inputs and which target the second layer was fitted to
    loaded = load_model(sources["model"])
    target = capture(loaded, prompts_of(sources, anchors, "en"), [3], into=Rows())[3]
    with edited(loaded, alone[1], {"model": sources["model"].reader}) as model:
        low = [capture(model, prompts_of(sources, anchors, name), [3], into=Rows())[3] for name in ("aa", "bb")]
    rows = state(sources, "model")[gate(3)][second.rows]
    gap = (torch.cat([3.0 * target - x for x in low]) @ rows.T).square().sum(1).mean()
    assert evidence(both)["layers"]["3"]["projections"]["gate"]["cost_before"] == pytest.approx(float(gap), rel=1e-4)


def test_later_layers_are_recorded_from_where_the_edit_begins(
    sources: Sources, anchors: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, of, went_on = entry(anchors, layers=(1, 2, 3)), Residuals.of, [0]

    def counted(entered: Residuals, batch: object) -> torch.Tensor | None:
        found = of(entered, batch)
        went_on[0] += found is not None
        return found

    monkeypatch.setattr(Residuals, "of", counted)
    edit, batches = method.fit(sources), went_on[0]
    monkeypatch.setattr(Residuals, "of", lambda *_: None)
    assert edit.sha256 == method.fit(sources).sha256
    languages, kinds, further_layers = 3, 2, 2
    assert batches >= languages * kinds * further_layers


def test_the_order_of_layers_and_languages_does_not_matter(sources: Sources, anchors: object) -> None:
    one = entry(anchors, layers=(1, 2)).fit(sources)
    other = entry(anchors, layers=(2, 1), languages=("bb", "aa")).fit(sources)
    for name, operation in touched(one).items():
        swapped = touched(other)[name]
        torch.testing.assert_close(operation.a @ operation.b.T, swapped.a @ swapped.b.T, rtol=1e-4, atol=1e-6)


def test_leaving_a_language_out_is_as_if_it_were_not_there(sources: Sources, anchors: object) -> None:
    out = entry(anchors, leave_out="bb")
    assert out.label == "sparse_edit.without_bb"
    without = entry(anchors, languages=("aa",)).fit(sources)
    assert differing(result(out.fit(sources), sources), result(without, sources)) == []


def test_a_language_of_large_weight_gets_more(sources: Sources, anchors: object) -> None:
    def closed(**weights: float) -> float:
        found = entry(anchors, rank=1, weights=weights).fit(sources)
        return float(evidence(found)["layers"]["2"]["gap_closed"]["aa"]["anchors"])

    assert closed(aa=50.0) > closed() > closed(bb=50.0)


def test_a_heavy_pivot_is_pinned(sources: Sources, anchors: object) -> None:
    loaded = load_model(sources["model"])
    x = capture(loaded, prompts_of(sources, anchors, "en"), [2], into=Rows())[2]
    moved = []
    for weight in (0.0, 1e4):
        operation = touched(entry(anchors, pivot_weight=weight, held_out=0.0).fit(sources))[gate(2)]
        moved.append(float((x @ operation.b @ operation.a.T).norm()))
    assert moved[1] < 0.2 * moved[0]


# Options.


@pytest.mark.parametrize("options", [{"selector": "gated_product"}, {"absolute": True}])
def test_other_ways_to_choose_units(sources: Sources, anchors: object, options: dict[str, Any]) -> None:
    usual, other = (evidence(entry(anchors, **given).fit(sources)) for given in ({}, options))
    units = [found["layers"]["2"]["projections"]["gate"]["units"] for found in (usual, other)]
    assert units[0] != units[1]


def test_units_of_the_gated_product_are_shared(sources: Sources, anchors: object) -> None:
    found = evidence(entry(anchors, selector="gated_product").fit(sources))["layers"]["2"]["projections"]
    assert found["gate"]["units"] == found["up"]["units"]


@pytest.mark.fault(18, "held-out rows are left alone")
def test_hard_utility_leaves_harmless_anchors_alone(sources: Sources, tmp_path: Path) -> None:
    few = write_anchors(tmp_path, harmful=10, harmless=3)
    found = evidence(entry(few, utility="hard", null_threshold=1e-9).fit(sources))["layers"]["2"]
    assert found["free_directions"] == 16 - 9
    assert max(found["drift"].values()) < 1e-6
    assert all(closed["anchors"] > 0 for closed in found["gap_closed"].values())


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3", "gpt_neox"])
def test_families_are_edited_where_their_units_are(
    family: str, opened: Opener, anchors: object, tmp_path: Path
) -> None:
    sources = opened({"model": tiny_model(family, layers=3).save(tmp_path / family)})
    edit = entry(anchors, layers=(1,)).fit(sources)
    names = differing(state(sources, "model"), result(edit, sources))
    expected = {"phi3": ["gate_up_proj"], "gpt_neox": ["dense_h_to_4h"]}.get(family, ["gate_proj", "up_proj"])
    assert [name.split(".")[-2] for name in names] == expected
    assert all(".1." in name for name in names)
    if family == "phi3":
        rows = touched(edit)[names[0]].rows
        assert int(rows.min()) < 24 <= int(rows.max())
        parts = evidence(edit)["layers"]["1"]["projections"]
        assert rows.tolist() == [*parts["gate"]["units"], *(24 + unit for unit in parts["up"]["units"])]


@pytest.mark.parametrize("family", ["mixtral", "gpt2"])
def test_other_layouts_are_refused(family: str, opened: Opener, anchors: object, tmp_path: Path) -> None:
    sources = opened({"model": tiny_model(family, layers=2).save(tmp_path / family)})
    for layers in ((1,), ("auto",)):
        with pytest.raises(ArchitectureError, match="the MLP of layer"):
            entry(anchors, layers=layers).fit_with(sources, judged_by(FakeValidator({})))


# Evidence.


def test_evidence_tells_what_was_done(sources: Sources, anchors: object) -> None:
    edit = entry(anchors, layers=(1, 2), held_out=0.25).fit(sources)
    found = evidence(edit)
    total = sum(spec.numel for spec in sources["model"].checkpoint.tensors.values())
    changed = sum(operation.rows.numel() * 16 for operation in touched(edit).values())
    assert found["weights_changed"] == changed
    assert found["share_of_weights_changed"] == changed / total
    assert found["factor_bytes"] == sum(
        t.nbytes for operation in touched(edit).values() for t in (operation.rows, operation.a, operation.b)
    )
    assert found["anchors"]["harmful"] + found["anchors"]["held_out"] == 24
    assert found["anchors"]["held_out"] > 0
    assert set(found["jaccard"]) == {"en", "aa", "bb"}
    assert found["jaccard"]["aa"]["aa"] == 1.0
    assert found["jaccard"]["aa"]["bb"] == found["jaccard"]["bb"]["aa"] < 1.0
    part = found["layers"]["1"]["projections"]["up"]
    assert part["cost_without_rank_limit"] <= part["cost"] < part["cost_before"]
    assert part["spectrum"] == sorted(part["spectrum"], reverse=True)
    assert [decision.block for decision in edit.provenance[0].decisions] == ["layers.1.mlp", "layers.2.mlp"]
    json.dumps(found)


def test_a_rank_that_the_anchors_do_not_determine_is_told(sources: Sources, anchors: object) -> None:
    edit = entry(anchors, rank=32).fit(sources)
    notes = [note for note in edit.provenance[0].notes if "rank 32" in note]
    assert len(notes) == 2
    assert all(part["rank"] < 32 for part in evidence(edit)["layers"]["2"]["projections"].values())


def test_the_loss_of_a_coarse_storage_type_is_measured_and_told(
    opened: Opener, anchors: object, tmp_path: Path
) -> None:
    half = opened({"model": tiny_model("llama", layers=LAYERS).to(torch.bfloat16).save(tmp_path / "half")})
    strong, weak = (entry(anchors, ridge=ridge).fit(half) for ridge in (0.01, 1000.0))
    for edit, large in ((strong, False), (weak, True)):
        part = evidence(edit)["layers"]["2"]["projections"]["gate"]
        before, after = state(half, "model")[gate(2)], result(edit, half)[gate(2)]
        operation = touched(edit)[gate(2)]
        delta = operation.a.to(torch.float64) @ operation.b.to(torch.float64).T
        kept = (after.to(torch.float64) - before.to(torch.float64))[operation.rows]
        assert part["merge_loss"]["BF16"] == pytest.approx(float((kept - delta).norm() / delta.norm()), rel=1e-3)
        assert (part["merge_loss"]["BF16"] > 0.05) is large
        assert any("of the edit" in warning for warning in edit.provenance[0].warnings) is large


def test_an_edit_without_utility_is_warned_of(sources: Sources, anchors: object) -> None:
    for options in ({"utility": "none"}, {"utility_weight": 0.0}):
        edit = entry(anchors, **options).fit(sources)
        assert any("over-refusal" in warning for warning in edit.provenance[0].warnings)
    assert not entry(anchors).fit(sources).provenance[0].warnings


# Choosing layers and gain.


def test_layers_are_chosen_by_what_the_edited_model_does(sources: Sources, anchors: object) -> None:
    validator = FakeValidator({(1,): 0.4, (2,): 0.6, (0, 2): 0.9, (1, 2): 0.7})
    edit = entry(anchors, layers=("auto",), max_layers=4).fit_with(sources, judged_by(validator))
    assert evidence(edit)["chosen"] == {"layers": [0, 2], "gain": 1.0}
    assert {int(name.split(".")[2]) for name in touched(edit)} == {0, 2}
    tried = [tuple(trial["layers"]) for trial in evidence(edit)["trials"]]
    assert tried == [(0,), (1,), (2,), (3,), (0, 2), (1, 2), (2, 3), (0, 1, 2), (0, 2, 3)]
    settled = entry(anchors, layers=("auto",), max_layers=4).settled(edit)
    assert differing(result(settled.fit(sources), sources), result(edit, sources)) == []


def test_of_equal_candidates_the_smaller_gain_is_taken(sources: Sources, anchors: object) -> None:
    edit = entry(anchors, target_gain=(3.0, 1.5)).fit_with(sources, judged_by(FakeValidator({(2,): 0.5})))
    assert evidence(edit)["chosen"] == {"layers": [2], "gain": 1.5}


def test_a_language_left_out_is_not_asked_about(sources: Sources, anchors: object) -> None:
    validator = FakeValidator({(2,): 0.5})
    entry(anchors, layers=("auto",), leave_out="bb").fit_with(sources, judged_by(validator))
    assert set(validator.asked) == {("en", "aa")}


def test_languages_that_still_comply_are_told(sources: Sources, anchors: object) -> None:
    edit = entry(anchors, layers=("auto",)).fit_with(sources, judged_by(FakeValidator({(2,): 0.3})))
    assert any("aa, bb still refuse less than half" in warning for warning in edit.provenance[0].warnings)


def test_a_gain_needs_something_to_choose_by(sources: Sources, anchors: object) -> None:
    for options in ({"target_gain": (1.0, 2.0)}, {"layers": ("auto",), "target_gain": (1.0, 2.0)}):
        with pytest.raises(RecipeError, match="nothing to compare candidates by"):
            entry(anchors, **options).fit(sources)


def test_without_validation_the_layer_is_where_languages_fall_shortest(sources: Sources, anchors: object) -> None:
    """The score by hand, from the same activations; the last fifth of the layers is not looked at."""
    edit = entry(anchors, layers=("auto",)).fit(sources)
    ranking = evidence(edit)["ranking"]
    assert list(ranking) == ["0", "1", "2", "3"][: int(0.8 * LAYERS) + 1]
    loaded = load_model(sources["model"])
    rows = {
        kind: {
            name: capture(loaded, prompts_of(sources, anchors, name, kind), [1], into=Rows())[1].double()
            for name in ("en", "aa", "bb")
        }
        for kind in ("harmful", "harmless")
    }
    direction = rows["harmful"]["en"].mean(0) - rows["harmless"]["en"].mean(0)
    along = {kind: {name: x @ direction / direction.norm() for name, x in of.items()} for kind, of in rows.items()}
    gap = {name: along["harmful"][name].mean() - along["harmless"][name].mean() for name in ("en", "aa", "bb")}
    spread = ((along["harmful"]["en"].var() + along["harmless"]["en"].var()) / 2).sqrt()
    expected = (gap["en"] - (gap["aa"] + gap["bb"]) / 2) / spread
    assert ranking["1"] == pytest.approx(float(expected), rel=1e-4)
    best = max(ranking, key=lambda layer: ranking[layer])
    assert evidence(edit)["chosen"] == {"layers": [int(best)], "gain": 1.0}
    assert evidence(edit)["trials"] == []
    assert any(f"layer {best} was chosen on the anchors" in note for note in edit.provenance[0].notes)
    named = entry(anchors, layers=(int(best),)).fit(sources)
    assert touched(edit).keys() == touched(named).keys()
    assert "ranking" not in evidence(named)
