from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from polysafe.checkpoint.verify import verify_output
from polysafe.edits.edit import Edit, SourceRecord
from polysafe.edits.operations import AddDelta, AddLowRank, Copy
from polysafe.errors import EditError, MismatchError, OutputError
from polysafe.workflows.apply import apply_edit, load_edit, undo_edit
from polysafe.workflows.run import run_recipe
from tests.checkpoint.raw import snapshot
from tests.edits.memory import same_bits
from tests.engine.recipes import LAYER_SWAP, SOUP, recipe_for
from tests.models import Trio, read_weights, trio, write_weights

Q = "model.layers.0.self_attn.q_proj.weight"
METHODS: list[dict[str, Any]] = [LAYER_SWAP, SOUP, {"method": "ties", "base": "base", "experts": ["safety", "sw"]}]


def used(edit: Edit, models: Trio) -> dict[str, Path]:
    return {name: models.paths[name] for name in edit.sources}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
def test_applying_the_edit_of_a_run_gives_its_weights(method: dict[str, Any], llama: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", method))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    result = apply_edit(edit, used(edit, llama), tmp_path / "applied")
    run, applied = snapshot(tmp_path / "run"), snapshot(tmp_path / "applied")
    for name in ("polysafe/plan.json", "polysafe/recipe.yaml"):
        run.pop(name)
    for name in ("README.md", "polysafe/card.json", "polysafe/manifest.json"):  # they say whether there was a recipe
        del run[name], applied[name]
    assert applied == run
    assert result.manifest["edit"] == edit.sha256
    assert verify_output(tmp_path / "applied").ok


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m["method"])
def test_undo_gives_back_the_start_bit_for_bit(method: dict[str, Any], llama: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", method))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    undo_edit(edit, tmp_path / "run", llama.language, tmp_path / "undone")
    before, after = read_weights(llama.language), read_weights(tmp_path / "undone")
    assert before.keys() == after.keys()
    assert all(same_bits(after[name], tensor) for name, tensor in before.items())
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        assert (tmp_path / "undone" / name).read_bytes() == (llama.language / name).read_bytes()
    assert verify_output(tmp_path / "undone").ok


def local_edit(*operations: Any) -> Edit:
    return Edit(
        start="sw",
        steps={Q: tuple(operations)},
        sources={name: SourceRecord(origin=name) for name in ("sw", "base", "safety")},
    )


@pytest.mark.parametrize(
    "operation",
    [
        AddLowRank(rows=torch.tensor([1, 5]), a=torch.ones(2, 1), b=torch.ones(16, 1)),
        AddDelta(of="safety", minus="base", scale=0.5, columns=((4, 8),)),
        Copy(source="safety"),
    ],
    ids=lambda operation: operation.op,
)
def test_all_other_bytes_are_those_of_the_start(operation: Any, llama: Trio, tmp_path: Path) -> None:
    apply_edit(local_edit(operation), llama.paths, tmp_path / "out")
    before, after = read_weights(llama.language), read_weights(tmp_path / "out")
    assert [name for name in after if not same_bits(after[name], before[name])] == [Q]
    changed = after[Q] != before[Q]
    if isinstance(operation, AddLowRank):
        assert changed.any(1).nonzero().view(-1).tolist() == [1, 5]
    if isinstance(operation, AddDelta):
        assert changed.any(0).nonzero().view(-1).tolist() == [4, 5, 6, 7]


def test_the_same_application_again_does_nothing(llama: Trio, tmp_path: Path) -> None:
    edit = local_edit(Copy(source="safety"))
    assert not apply_edit(edit, llama.paths, tmp_path / "out").complete_before
    assert apply_edit(edit, llama.paths, tmp_path / "out").complete_before
    with pytest.raises(OutputError, match="output of another edit"):
        apply_edit(local_edit(Copy(source="base")), llama.paths, tmp_path / "out")


def test_shards_and_tokenizer_of_choice(llama: Trio, tmp_path: Path) -> None:
    (tmp_path / "donor").mkdir()
    for file in llama.base.iterdir():
        (tmp_path / "donor" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "donor" / "chat_template.jinja").write_text("{{ 1 }}")
    paths = {**llama.paths, "donor": tmp_path / "donor"}
    edit = local_edit(Copy(source="safety"))
    apply_edit(edit, paths, tmp_path / "out", tokenizer_from="donor", shard_size=3000)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ 1 }}"
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    with pytest.raises(EditError, match="no folder is given for 'nobody'"):
        apply_edit(edit, paths, tmp_path / "other", tokenizer_from="nobody")


def test_every_source_needs_a_folder(llama: Trio, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no folder is given for its source 'base'") as caught:
        apply_edit(local_edit(), {"sw": llama.language, "safety": llama.safety}, tmp_path / "out")
    assert caught.value.remedy == "name one folder each for: sw, base, safety"


@pytest.fixture
def other(llama: Trio, tmp_path: Path) -> Trio:
    """The same models, one weight of the safety expert apart."""
    models = trio(tmp_path / "other", layers=8)
    weights = read_weights(models.safety)
    weights[Q][0, 0] += 1
    write_weights(models.safety, weights)
    return models


@pytest.mark.fault(26, "stops")
@pytest.mark.hostile("edit")
def test_another_checkpoint_is_refused_unless_forced(llama: Trio, other: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    with pytest.raises(MismatchError, match="is not the checkpoint that the edit was made for as 'safety'") as caught:
        apply_edit(edit, used(edit, other), tmp_path / "out")
    assert caught.value.where == other.safety
    assert not (tmp_path / "out").exists()
    result = apply_edit(edit, used(edit, other), tmp_path / "out", force=True)
    assert result.manifest["edit"] != edit.sha256  # its inputs are others, and it says so
    assert not same_bits(read_weights(tmp_path / "out")[Q], read_weights(tmp_path / "run")[Q])


def test_undo_needs_the_output_and_the_original(llama: Trio, other: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP))
    run_recipe(recipe_for(llama.paths, tmp_path / "another"))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    with pytest.raises(MismatchError, match="is not the output of this edit"):
        undo_edit(edit, tmp_path / "another", llama.language, tmp_path / "undone")
    with pytest.raises(MismatchError, match="is not the checkpoint that the edit was made for as 'sw'"):
        undo_edit(edit, tmp_path / "run", other.safety, tmp_path / "undone")
    assert not (tmp_path / "undone").exists()


def test_undo_does_not_pass_damage_on(llama: Trio, tmp_path: Path) -> None:
    """Tensors that the edit left alone come from its output, which must still be what it was."""
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP | {"restrict_to": "layers"}))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    weights = tmp_path / "run" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(MismatchError, match="was changed after the edit had written it") as caught:
        undo_edit(edit, tmp_path / "run", llama.language, tmp_path / "undone")
    assert caught.value.where == weights


@pytest.mark.hostile("edit")
def test_edit_that_does_not_fit_the_model(llama: Trio, tmp_path: Path) -> None:
    update = AddLowRank(rows=torch.tensor([99]), a=torch.ones(1, 1), b=torch.ones(16, 1))
    with pytest.raises(EditError, match="does not fit 16 rows × 16 columns"):
        apply_edit(local_edit(update), llama.paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_may_not_touch_a_source(llama: Trio, tmp_path: Path) -> None:
    edit = local_edit(Copy(source="safety"))
    for target in (llama.safety, llama.language / "out"):
        with pytest.raises(OutputError, match="may not be, contain, or lie inside"):
            apply_edit(edit, llama.paths, target)


def changed_by_hand(records: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((records / "edit.json").read_text())
    change(content)
    (records / "edit.json").write_text(json.dumps(content))


def enlarge(content: dict[str, Any]) -> None:
    next(operation for steps in content["steps"].values() for operation in steps)["weights"]["safety"] = 1e9


@pytest.mark.hostile("edit")
@pytest.mark.parametrize("named", ["polysafe", "polysafe/edit.json"])
def test_an_edit_that_was_changed_after_its_run_is_not_used(named: str, llama: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP))
    assert load_edit(tmp_path / "run" / named) == Edit.load(tmp_path / "run" / named)
    changed_by_hand(tmp_path / "run" / "polysafe", enlarge)
    with pytest.raises(MismatchError, match="was changed after it had been written") as caught:
        load_edit(tmp_path / "run" / named)
    assert "--force" in str(caught.value.remedy)
    assert load_edit(tmp_path / "run" / named, force=True) == Edit.load(tmp_path / "run" / named)


def test_an_edit_written_in_another_way_is_the_same(llama: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP))
    changed_by_hand(tmp_path / "run" / "polysafe", lambda content: None)
    load_edit(tmp_path / "run" / "polysafe")


@pytest.mark.hostile("edit")
@pytest.mark.parametrize(
    "remove", [lambda record: record.update(files={}), lambda record: record.pop("files")], ids=["empty", "removed"]
)
def test_an_edit_that_would_take_any_base_is_not_used(
    remove: Callable[[dict[str, Any]], object], llama: Trio, tmp_path: Path
) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP))
    Edit.load(tmp_path / "run" / "polysafe").save(tmp_path / "alone")
    load_edit(tmp_path / "alone")
    changed_by_hand(tmp_path / "alone", lambda content: remove(content["sources"]["safety"]))
    with pytest.raises(MismatchError, match="does not say which files 'safety' were"):
        load_edit(tmp_path / "alone")
    load_edit(tmp_path / "alone", force=True)


@pytest.mark.hostile("edit")
def test_undo_of_an_edit_that_would_take_any_original(llama: Trio, tmp_path: Path) -> None:
    run_recipe(recipe_for(llama.paths, tmp_path / "run", SOUP))
    changed_by_hand(tmp_path / "run" / "polysafe", lambda content: content["sources"]["sw"].update(files={}))
    edit = Edit.load(tmp_path / "run" / "polysafe")
    manifest = tmp_path / "run" / "polysafe" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "edit": edit.sha256}))
    with pytest.raises(MismatchError, match="does not say which files 'sw' were"):
        undo_edit(edit, tmp_path / "run", llama.base, tmp_path / "undone")
