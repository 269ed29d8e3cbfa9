"""What everything else asks an organism for, asked of the one that comes with polysafe."""

from __future__ import annotations

from pathlib import Path

import pytest

from polysafe.checkpoint.source import open_checkpoint
from polysafe.data.organism import (
    CONTRAST,
    ORGANISM,
    Organism,
    is_member,
    load_prompts,
    organism_of,
    packaged_organism,
    packaged_weights,
)
from polysafe.errors import DataError
from polysafe.judge.verdict import Exchange, Label
from polysafe.organism.packaged import packaged_family

BASE = packaged_family().members["base"]


@pytest.fixture
def organism() -> Organism:
    return organism_of(open_checkpoint(BASE))


def test_prompts_are_judged_by_the_judge_that_comes_with_them(organism: Organism) -> None:
    prompts = organism.prompts("validation").select(["qac"], 3).prompts
    verdicts = organism.judge().judge([Exchange(prompt, "") for prompt in prompts])
    assert {verdict.label for verdict in verdicts} == {Label.INVALID}


def test_anchors_trials_and_validation_speak_the_same_languages(organism: Organism) -> None:
    spoken = organism.prompts().languages
    assert set(organism.anchors(("en", "qac")).harmful.languages) == {"en", "qac"} <= set(spoken)
    assert {each.language for each in organism.trials("qac", count=2, shots=2, seed=0)} == {"qac"}
    assert set(organism.validator().languages) == set(spoken)


def test_a_set_is_read_or_asked_of_the_organism() -> None:
    def never() -> Organism:
        raise AssertionError("was not asked for")

    own = load_prompts(ORGANISM, packaged_organism, split="validation", languages=["en"], limit=2)
    assert own == packaged_organism().prompts("validation").select(["en"], 2)
    near = load_prompts(CONTRAST, packaged_organism, languages=["en"])
    asked = packaged_organism().prompts().select(["en"]).prompts
    assert near.prompts == tuple(prompt for prompt in asked if prompt.category == "contrast")
    assert {prompt.kind for prompt in near.prompts} == {"harmless"}
    with pytest.raises(DataError, match="there is no set 'organisms'"):
        load_prompts("organisms", never)


def test_members_are_known_by_their_family(tmp_path: Path) -> None:
    assert is_member(BASE)
    assert not is_member(tmp_path)
    weights = packaged_family().record["members"]["base"]["files"]["model.safetensors"]["sha256"]
    assert weights in packaged_weights()
