from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from polysafe.edits.edit import Decision, Edit, Provenance, SourceRecord
from polysafe.edits.operations import AddDelta, AddLowRank, Copy
from polysafe.edits.size import StartShapes
from polysafe.findings.data import LayerUnits
from polysafe.findings.edits import ALL, block_decisions, target_of, touched
from polysafe.stats.overlap import chance_overlap

SOURCES = {name: SourceRecord(origin=name) for name in ("start", "other")}
START = StartShapes(tensors=12, weights=2000, shapes={"up": (16, 8), "gate": (16, 8), "o": (8, 8)})
NEURONS: dict[str, Any] = {
    "layers": {
        "2": {"projections": {"gate": {"units": [5, 1], "units_of": 16}, "up": {"units": [1, 7], "units_of": 16}}},
        "3": {"projections": {}},
    },
    "jaccard": {"en": {"sw": 0.25}},
}
HEADS: dict[str, Any] = {"heads": [[1, 3], [1, 0]], "scores": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.0, 0.9]]}
NEURON_LAYERS = (LayerUnits(2, "mlp", (1, 5, 7), 16), LayerUnits(3, "mlp", (), 16))
HEAD_LAYERS = (
    LayerUnits(0, "attention", (), 4, (0.1, 0.2, 0.3, 0.4)),
    LayerUnits(1, "attention", (0, 3), 4, (0.5, 0.1, 0.0, 0.9)),
)


def part(**more: Any) -> Provenance:
    return Provenance(method="m.v1", label="m", **more)


def edit(*parts: Provenance) -> Edit:
    low = AddLowRank(rows=torch.tensor([1, 5, 7]), a=torch.ones(3, 1), b=torch.ones(8, 1))
    delta = AddDelta(of="other", minus="start", scale=-1.0, columns=((0, 2), (6, 8)))
    return Edit(start="start", steps={"up": (low,), "o": (delta,)}, sources=SOURCES, provenance=parts)


def test_neurons_of_a_sparse_edit() -> None:
    made = edit(part(evidence=NEURONS))
    (found,) = touched("sparse_edit", "sw", made, START)
    assert (found.unit, found.layers) == ("neurons", NEURON_LAYERS)
    assert found.overlap == {"en": {"sw": 0.25}}
    assert (found.tensors, found.tensors_total) == (2, 12)
    assert (found.weights, found.weights_total) == (3 * 8 + 8 * 4, 2000)
    assert (found.edit_sha256, found.edit_bytes) == (made.sha256, made.nbytes)
    assert found.chance == {}


def test_chance_level_of_an_edit_that_says_how_many_units_each_language_has() -> None:
    counts = {"en": {"2.gate": 2, "2.up": 2}, "sw": {"2.gate": 4, "2.up": 1}}
    (found,) = touched("sparse_edit", "sw", edit(part(evidence={**NEURONS, "safety_neurons": counts})), START)
    assert found.chance["en"]["sw"] == chance_overlap([(16, 2, 4), (16, 2, 1)])
    assert set(found.chance) == {"en", "sw"}


def test_heads_of_a_hybrid_are_shown_at_their_layers() -> None:
    hybrid = {"heads": [[7, 3], [7, 0]], "scores": HEADS["scores"], "layers_with_heads": [3, 7]}
    (found,) = touched("head_steering", ALL, edit(part(evidence=hybrid)), START)
    assert found.layers == tuple(replace(each, layer=layer) for each, layer in zip(HEAD_LAYERS, (3, 7), strict=True))


def test_heads_with_their_scores() -> None:
    (found,) = touched("head_steering", ALL, edit(part(evidence=HEADS)), START)
    assert (found.unit, found.layers, found.overlap) == ("heads", HEAD_LAYERS, {})


def test_a_stack_has_an_entry_for_each_kind_of_unit() -> None:
    found = touched("both", ALL, edit(part(evidence=NEURONS), part(evidence=HEADS)), START)
    assert [(each.unit, each.layers) for each in found] == [("neurons", NEURON_LAYERS), ("heads", HEAD_LAYERS)]
    assert len({each.weights for each in found}) == 1


def test_decisions_tell_the_layers_of_a_swap() -> None:
    swap = part(decisions=(Decision(block="layers.0", layer=0, choice="safety", safety_weight=1.0, score=0.5),))
    (found,) = touched("layer_swap.layer", "sw", edit(swap), START)
    assert (found.unit, found.layers) == ("blocks", ())
    assert [(each.block, each.choice) for each in block_decisions(edit(swap))] == [("layers.0", "safety")]


def test_an_edit_of_one_model_has_no_map_of_blocks() -> None:
    decision = Decision(block="layers.0.mlp", layer=0, module="mlp", choice="edited", safety_weight=1.0)
    assert block_decisions(edit(part(decisions=(decision,), evidence=NEURONS))) == ()


def test_an_edit_without_provenance_still_has_a_size() -> None:
    plain = Edit(start="start", steps={"up": (Copy(source="other"),)}, sources=SOURCES)
    (found,) = touched("mine", ALL, plain, START)
    assert (found.tensors, found.weights) == (1, 128)


def test_targets() -> None:
    assert target_of(edit(part(options={"language": "sw"}))) == "sw"
    assert target_of(edit(part(options={"languages": ["sw"]}))) == "sw"
    assert target_of(edit(part(options={"languages": ["sw", "bn"]}))) == ALL
    assert target_of(edit(part(options={"language": "sw"}), part(options={"language": "bn"}))) == ALL
    assert target_of(edit(part())) == ALL
