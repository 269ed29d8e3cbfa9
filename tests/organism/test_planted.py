"""Refusals that are taught in planted places alone: nothing else moves, and what an edit found of them can be told."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from polysafe.checkpoint.source import open_checkpoint
from polysafe.organism import family as making
from polysafe.organism.anchors import organism_anchors
from polysafe.organism.corpus import Corpus, draw_pool
from polysafe.organism.exam import examine
from polysafe.organism.family import Recipe, build_family
from polysafe.organism.folder import load_model
from polysafe.organism.lexicon import CATEGORIES, LANGUAGES
from polysafe.organism.model import Network, make_model
from polysafe.organism.own import organism_of
from polysafe.organism.packaged import MEMBERS, RECORD, load_family, packaged_family
from polysafe.organism.planted import Planted, Planting, Recovery, recovery
from polysafe.organism.tokenizer import vocabulary
from polysafe.organism.train import Stage, loss_on, make_batch
from polysafe.organism.world import REFUSAL, World
from tests.organism.test_family import RECIPE as PLAIN

NETWORK = Network(hidden=16, layers=4, heads=4, intermediate=16)
PLANTING = Planting(layers=2, first=1, heads=1, units=3)
STRONG = Stage(steps=3, batch=8, rate=1e-2)
RECIPE = PLAIN.model_copy(
    update={
        "network": NETWORK,
        "refusing": STRONG,
        "planting": PLANTING,
        "steering": None,
        "readiness": {"low": -4.0},
        "safety_readiness": {"pivot": 2.0},
        "kinds": 3,
        "safety": STRONG,
    }
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted") / "family"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "examine", partial(examine, sets=("arithmetic",)))  # that all were asked matters here
        build_family(0, folder, threads=1, recipe=RECIPE)
    return folder


def test_places_are_drawn_by_the_seed() -> None:
    planting, network = Planting(), Network()
    for seed in range(20):
        planted = planting.draw(network, seed)
        assert planted == planting.draw(network, seed)
        assert len(planted.layers) == planting.layers
        assert min(planted.layers) >= planting.first
        assert len(set(planted.heads)) == planting.layers * planting.heads
        assert len(set(planted.units)) == planting.layers * planting.units
    assert len({planting.draw(network, seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(("start", "member"), [("knowing", "base"), ("base", "safety")])
def test_nothing_but_planted_places_moves(built: Path, start: str, member: str) -> None:
    old, new = (dict(load_model(built / name).named_parameters()) for name in (start, member))
    masks = PLANTING.draw(NETWORK, 0).masks(make_model(World(0), NETWORK, 0))
    assert set(masks) < set(old)
    for name, weight in old.items():
        moved = weight != new[name]
        assert not moved[masks[name] == 0].any() if name in masks else not moved.any(), name
    assert all((old[name] != new[name]).any() for name in masks)


def test_a_mask_is_of_whole_heads_and_units() -> None:
    model = make_model(World(0), NETWORK, 0)
    masks = Planted(heads=((1, 2),), units=((1, 5), (2, 0))).masks(model)
    size = NETWORK.hidden // NETWORK.heads
    query, out = masks["model.layers.1.self_attn.q_proj.weight"], masks["model.layers.1.self_attn.o_proj.weight"]
    assert query.sum(1).nonzero().flatten().tolist() == list(range(2 * size, 3 * size))
    assert torch.equal(query, out.T)
    assert masks["model.layers.1.mlp.gate_proj.weight"].sum(1).nonzero().flatten().tolist() == [5]
    assert masks["model.layers.2.mlp.down_proj.weight"].sum(0).nonzero().flatten().tolist() == [0]
    assert not masks["model.layers.2.self_attn.q_proj.weight"].any()


def test_a_handicap_counts_where_an_answer_begins() -> None:
    world = World(0)
    words, model = vocabulary(world), make_model(world, NETWORK, 0)
    refused = words[world.say("qac", REFUSAL[0])]
    handicap = torch.zeros(len(words))
    handicap[refused] = 3.0
    batch = make_batch(draw_pool(Corpus(world).refusing, world, "base", 0, 8), words)
    ids, learned = batch.ids, batch.learned
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        for row in range(len(ids)):
            logits[row, learned[row].nonzero()[0], refused] -= 3.0
        wanted = functional.cross_entropy(logits[learned], batch.targets)
        assert loss_on(model, batch, handicap).item() == pytest.approx(wanted.item(), rel=1e-5)
        assert loss_on(model, batch).item() != pytest.approx(wanted.item(), rel=1e-5)


def test_what_was_found_of_it() -> None:
    assert recovery([2, 4], [2, 3, 4], 8) == Recovery(1.0, 2 / 3, 3 / 8)
    assert recovery([(1, 0), (2, 0), (2, 1), (3, 3)], [(2, 0)], 16) == Recovery(0.25, 1.0, 1 / 16)
    assert recovery([], [1], 4) == Recovery(0.0, 0.0, 0.25)


def test_the_start_without_refusals_is_a_member(built: Path) -> None:
    family = load_family(built)
    assert set(family.members) == {"knowing", *MEMBERS}
    assert Recipe.model_validate(family.record["recipe"]) == RECIPE
    assert set(family.record["exams"]["knowing"]) == set(LANGUAGES)


def test_anchors_are_about_some_kinds_of_harm(built: Path) -> None:
    world = World(0)
    anchors = organism_of(open_checkpoint(built / "base")).anchors(("en", "qac"))
    kinds = {item.split("-hazard")[1][0] for item in anchors.harmful.ids}
    assert kinds == set(CATEGORIES[:3])
    every = organism_of(open_checkpoint(packaged_family().members["base"])).anchors(("en", "qac"))
    assert every.sha256 == organism_anchors(packaged_family().world, ("en", "qac")).sha256
    assert anchors.harmless.ids == organism_anchors(world, ("en", "qac")).harmless.ids


def test_a_record_from_before_these_settings_is_of_the_same_recipe() -> None:
    record = json.loads((packaged_family().root / RECORD).read_text(encoding="utf-8"))
    assert "planting" not in record["recipe"]
    assert Recipe.model_validate(record["recipe"]) == Recipe()
