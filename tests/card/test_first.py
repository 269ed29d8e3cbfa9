"""The card that every output comes with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polysafe.card.data import CARD, CARD_DATA
from polysafe.card.store import load_card, update_card
from polysafe.checkpoint.hub import HubId, hub_ids
from polysafe.checkpoint.source import open_checkpoint
from polysafe.checkpoint.update import replace_files
from polysafe.checkpoint.verify import UPDATE, verify_output
from polysafe.edits.edit import Edit
from polysafe.errors import DataError, RecipeError, VerificationError
from polysafe.organism.packaged import packaged_family
from polysafe.workflows.apply import apply_edit, undo_edit
from polysafe.workflows.run import run_recipe
from tests.checkpoint.faults import KilledError, failing
from tests.checkpoint.raw import snapshot
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import Trio, trio

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def models(tmp_path: Path) -> Trio:
    return trio(tmp_path / "models", layers=2)


def test_an_output_has_a_card_of_its_own(models: Trio, tmp_path: Path) -> None:
    for name, path in models.paths.items():
        (path / CARD).write_text(f"---\nlicense: apache-2.0\n---\n# The card of {name}, another model\n")
    result = run_recipe(recipe_for(models.paths, tmp_path / "out", LAYER_SWAP))
    text = (tmp_path / "out" / CARD).read_text()
    assert "another model" not in text
    assert "\nlicense: apache-2.0\n" in text
    assert "Nothing has been measured yet" in text
    assert result.manifest["edit"] in text
    for record in result.manifest["sources"].values():
        assert all(digest in text for digest in record["files"].values())
    card = load_card(tmp_path / "out")
    assert card.merged
    assert not card.toy
    assert card.licence_question is None
    assert sum(card.operations.values()) == len(open_checkpoint(tmp_path / "out").tensors)


def test_nothing_tells_where_it_was_made(models: Trio, tmp_path: Path) -> None:
    table = str(tmp_path / "mine.csv")
    block = {
        "languages": ["en"],
        "safety": [table],
        "judge": {"kind": "openai", "base_url": "http://gpu-7.corp:8000/v1", "model": "j"},
    }
    recipe = recipe_for(models.paths, tmp_path / "out", SOUP)
    recipe = type(recipe).model_validate({**recipe.model_dump(mode="json"), "evaluate": block})
    run_recipe(recipe)
    for name in (CARD, "polysafe/card.json", "polysafe/edit.json", "polysafe/plan.json"):
        text = (tmp_path / "out" / name).read_text()
        assert str(tmp_path) not in text
        assert "gpu-7" not in text
    assert load_card(tmp_path / "out").asked["safety"] == ("mine.csv",)


def test_the_card_is_the_same_in_every_place(models: Trio, tmp_path: Path) -> None:
    for place in ("one", "other/place"):
        run_recipe(recipe_for(models.paths, tmp_path / place, SOUP))
    one, other = (snapshot(tmp_path / place) for place in ("one", "other/place"))
    assert one[CARD] == other[CARD]
    assert one["polysafe/card.json"] == other["polysafe/card.json"]


def test_applied_and_undone_edits_have_a_card(models: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(models.paths, tmp_path / "run", SOUP))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    apply_edit(edit, {name: models.paths[name] for name in edit.sources}, tmp_path / "applied")
    undo_edit(edit, tmp_path / "applied", models.paths[edit.start], tmp_path / "undone")
    assert load_card(tmp_path / "applied").recipe is None
    assert "weights:" in (tmp_path / "applied" / CARD).read_text()
    assert load_card(tmp_path / "undone").label == "undo"
    assert verify_output(tmp_path / "undone").ok


def test_toy_models_stay_toy_models(tmp_path: Path) -> None:
    members = packaged_family().members
    paths = {"base": members["base"], "safety": members["safety"]}
    soup = {"method": "soup", "weights": {"safety": 0.5, "base": 0.5}}
    run_recipe(recipe_for(paths, tmp_path / "one", soup))
    assert load_card(tmp_path / "one").toy
    again = {"method": "soup", "weights": {"one": 0.5, "base": 0.5}}
    run_recipe(recipe_for({"one": tmp_path / "one", "base": members["base"]}, tmp_path / "two", again))
    assert load_card(tmp_path / "two").toy
    assert "Toy model" in (tmp_path / "two" / CARD).read_text()


def test_models_of_the_hubs_cache_are_known(models: Trio, tmp_path: Path) -> None:
    place = tmp_path / "hub" / "models--org--name.x" / "snapshots" / COMMIT
    place.parent.mkdir(parents=True)
    models.base.rename(place)
    assert hub_ids(open_checkpoint(place)) == (HubId("org/name.x", COMMIT),)
    assert hub_ids(open_checkpoint(place, origin=f"org/name.x@{COMMIT}")) == (HubId("org/name.x", COMMIT),)
    assert hub_ids(open_checkpoint(models.safety)) == ()


def test_an_interrupted_update_is_finished_by_running_again(models: Trio, tmp_path: Path) -> None:
    recipe = recipe_for(models.paths, tmp_path / "out", SOUP)
    run_recipe(recipe)
    with failing(3, KilledError, calls=("replace",)), pytest.raises(KilledError):
        update_card(tmp_path / "out", licence="mit")
    assert (tmp_path / "out" / UPDATE).exists()
    assert not verify_output(tmp_path / "out").ok
    assert run_recipe(recipe).complete_before
    assert verify_output(tmp_path / "out").ok
    assert load_card(tmp_path / "out").licence == "mit"


def test_a_card_can_be_built_again(models: Trio, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_recipe(recipe_for(models.paths, out, SOUP))
    before = snapshot(out)
    update_card(out)
    assert snapshot(out) == before
    update_card(out, licence="MIT", name="team/model")
    assert "\nlicense: mit\n" in (out / CARD).read_text()
    assert verify_output(out).ok
    with pytest.raises(RecipeError, match="not among the hub's licences"):
        update_card(out, licence="mit\n---\n")
    (out / CARD).write_text("by hand")
    with pytest.raises(VerificationError, match="by hand"):
        update_card(out)
    assert (out / CARD).read_text() == "by hand"
    update_card(out, overwrite=True)
    assert verify_output(out).ok


def test_data_of_another_edit_is_refused(models: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(models.paths, tmp_path / "a", SOUP))
    run_recipe(recipe_for(models.paths, tmp_path / "b", LAYER_SWAP))
    replace_files(tmp_path / "a", {"polysafe/card.json": (tmp_path / "b" / "polysafe/card.json").read_bytes()})
    with pytest.raises(DataError, match="another edit"):
        update_card(tmp_path / "a")
    (tmp_path / "a" / "polysafe/card.json").unlink()
    with pytest.raises(DataError, match="is missing"):
        update_card(tmp_path / "a", overwrite=True)


@pytest.mark.hostile("report")
def test_card_data_that_never_end_are_not_waited_for(tmp_path: Path) -> None:
    run_recipe(recipe_for(trio(tmp_path, layers=2).paths, tmp_path / "out"))
    (tmp_path / "out" / CARD_DATA).unlink()
    os.mkfifo(tmp_path / "out" / CARD_DATA)
    with pytest.raises(DataError, match="cannot be read: it is a pipe or a device"):
        load_card(tmp_path / "out")
