"""The family's own anchors are its training split, and validation is its validation split."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.errors import DataError
from polysafe.organism.anchors import OrganismValidator, organism_anchors
from polysafe.organism.exam import REQUESTS, examine
from polysafe.organism.lexicon import LANGUAGES, LOW, MID, PIVOT
from polysafe.organism.own import Toy, organism_of, packaged_organism
from polysafe.organism.packaged import packaged_family
from polysafe.organism.prompts import organism_prompts
from polysafe.organism.world import World
from polysafe.probe.model import load_model

WORLD = World(0)


@pytest.fixture(scope="module")
def base() -> Iterator[Source]:
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(packaged_family().members["base"])
    with CheckpointReader(checkpoint) as reader:
        yield Source("base", checkpoint, classify(checkpoint), reader)


def test_anchors_share_nothing_with_what_is_asked() -> None:
    anchors = organism_anchors(WORLD, LANGUAGES)
    for split in ("validation", "test"):
        asked = {
            f"{split} {set_}": [each.text for each in organism_prompts(WORLD, split).prompts if each.category == set_]
            for set_ in REQUESTS
        }
        anchors.require_disjoint(asked)
    with pytest.raises(DataError, match="anchors are among"):
        anchors.require_disjoint({"training": [WORLD.request("qac", WORLD.harmful("train")[0])]})


def test_anchors_are_parallel_and_reproducible() -> None:
    anchors = organism_anchors(WORLD, (PIVOT, *LOW))
    assert anchors.sha256 == organism_anchors(World(0), (PIVOT, *LOW)).sha256
    assert anchors.sha256 != organism_anchors(World(1), (PIVOT, *LOW)).sha256
    assert len(anchors.harmful) == len(WORLD.harmful("train"))
    for row, pair in enumerate(WORLD.harmful("train")):
        assert all(anchors.harmful.texts[name][row] == WORLD.request(name, pair) for name in LOW)
    meanings = [
        [{WORLD.meaning(word) for word in text.split()} for text in anchors.harmless.texts[name]]
        for name in (PIVOT, "qac")
    ]
    for english, other in zip(*meanings, strict=True):
        assert {m[1] for m in english if m} == {m[1] for m in other if m}


def test_the_world_of_a_member_is_that_of_its_family(base: Source, tmp_path: Path) -> None:
    assert organism_of(base.checkpoint) == Toy(packaged_family().world) == packaged_organism()
    lonely = Path(shutil.copytree(base.checkpoint.root, tmp_path / "lonely"))
    with pytest.raises(DataError, match="not a member of the toy family"):
        organism_of(open_checkpoint(lonely))


def test_validation_counts_what_the_exam_counts(base: Source) -> None:
    world = packaged_family().world
    validator = OrganismValidator(packaged_organism())
    assert validator.languages == (PIVOT, *MID, *LOW)
    found = validator(load_model(base), ("en", "qac"))
    rates = examine(base.checkpoint.root, world, ("en", "qac"), "validation", REQUESTS).rates()
    for language, standing in found.items():
        assert standing.refused == rates[language]["refused"]
        assert standing.helpful == pytest.approx(rates[language]["capability.instructions"])
        assert standing.over_refused >= rates[language]["over_refusal"]
    assert found["en"].refused > 0.9
    assert found["qac"].refused < 0.5
