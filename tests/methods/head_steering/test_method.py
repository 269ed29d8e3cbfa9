"""Head steering as an edit: which bytes change, by how much, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from polysafe.checkpoint.lora import open_adapter, open_reader
from polysafe.checkpoint.opened import Source
from polysafe.checkpoint.reader import CheckpointReader
from polysafe.checkpoint.roles import classify
from polysafe.checkpoint.source import open_checkpoint
from polysafe.edits.edit import Edit
from polysafe.edits.reader import EditedReader
from polysafe.engine.plan import make_plan
from polysafe.errors import ArchitectureError, DataError, EditError, MismatchError, RecipeError
from polysafe.methods.head_steering.columns import block_norms, head_columns
from polysafe.methods.head_steering.method import HeadSteering
from polysafe.recipe.recipe import make_recipe
from polysafe.workflows.run import run_recipe
from tests.byte_level import save_byte_model
from tests.models import FAMILIES, HEAD_DIM, HEADS, HIDDEN, TinyModel, tiny_model

DENSE = [name for name in FAMILIES if name not in {"mixtral", "qwen3_moe", "gpt_oss"}]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def open_(name: str, model: TinyModel) -> Source:
            checkpoint = open_checkpoint(model.save(tmp_path / name))
            return Source(name, checkpoint, classify(checkpoint), stack.enter_context(CheckpointReader(checkpoint)))

        yield open_


def pair(opened: Any, family: str = "llama", dtype: torch.dtype = torch.float32) -> dict[str, Source]:
    base = tiny_model(family).to(torch.float32)
    harm = base.updated(1, lambda _: 0.3)
    return {"model": opened("model", base.to(dtype)), "harm": opened("harm", harm.to(dtype))}


def method(**options: Any) -> HeadSteering:
    fields = {"model": "model", "harmful": "harm", "languages": ("sw",)}
    return HeadSteering.model_validate({**fields, **options})


def after(edit: Edit, sources: Mapping[str, Source]) -> dict[str, torch.Tensor]:
    reader = EditedReader(edit, {name: source.reader for name, source in sources.items()})
    return {name: reader.whole(name) for name in reader.names()}


def before(sources: Mapping[str, Source], name: str = "model") -> dict[str, torch.Tensor]:
    reader = sources[name].reader
    return {tensor: reader.whole(tensor) for tensor in reader.names()}


@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_the_chosen_columns_change(opened: Any, family: str) -> None:
    sources = pair(opened, family)
    heads = ((0, 1), (1, 0), (1, 3))
    edit = method(heads=heads, strength=0.7).fit(sources)
    old, new, harm = before(sources), after(edit, sources), before(sources, "harm")
    columns = head_columns(sources["model"])
    outputs = {projection.tensor: projection for projection in columns.projections}
    assert {name for name in old if not torch.equal(old[name], new[name])} == {
        name for name, projection in outputs.items() if projection.layer in {0, 1}
    }
    for name, projection in outputs.items():
        changed, given, target = (t[name].T if projection.transposed else t[name] for t in (new, old, harm))
        mask = torch.zeros(HEADS * HEAD_DIM, dtype=torch.bool)
        for layer, head in heads:
            if layer == projection.layer:
                mask[head * HEAD_DIM : (head + 1) * HEAD_DIM] = True
        assert torch.equal(changed[:, ~mask], given[:, ~mask])
        wanted = given.double() - 0.7 * (target.double() - given.double())
        assert torch.equal(changed[:, mask], wanted.float()[:, mask])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_identities(opened: Any, dtype: torch.dtype) -> None:
    sources = pair(opened, dtype=dtype)
    layers = sources["model"].architecture.num_layers
    every = tuple((layer, head) for layer in range(layers) for head in range(HEADS))
    old, harm = before(sources), before(sources, "harm")
    nothing = after(method(heads=every, strength=0.0).fit(sources), sources)
    assert all(torch.equal(old[name], nothing[name]) for name in old)
    added = after(method(heads=every, strength=-1.0, force=True).fit(sources), sources)
    mirrored = after(method(heads=every, strength=1.0).fit(sources), sources)
    for name in old:
        if "o_proj" in name:
            assert torch.equal(added[name], harm[name])
            assert torch.equal(mirrored[name], (2 * old[name].double() - harm[name].double()).to(dtype))
        else:
            assert torch.equal(added[name], old[name])


def test_a_model_that_was_not_tuned_changes_nothing(opened: Any) -> None:
    base = tiny_model("llama")
    sources = {"model": opened("model", base), "harm": opened("harm", base)}
    edit = method(heads=((0, 0),)).fit(sources)
    assert all(torch.equal(tensor, after(edit, sources)[name]) for name, tensor in before(sources).items())
    assert "nothing changes" in edit.provenance[0].warnings[0]


def test_the_harm_model_may_have_another_base(opened: Any) -> None:
    start, base = (tiny_model("llama", seed=seed).to(torch.float32) for seed in (0, 1))
    harm = base.updated(2, lambda _: 0.3)
    sources = {"model": opened("model", start), "base": opened("base", base), "harm": opened("harm", harm)}
    edit = method(harm_base="base", heads=((0, 0),), strength=2.0).fit(sources)
    name = "model.layers.0.self_attn.o_proj.weight"
    wanted = start.tensors[name].double() - 2 * (harm.tensors[name].double() - base.tensors[name].double())
    assert torch.equal(after(edit, sources)[name][:, :HEAD_DIM], wanted.float()[:, :HEAD_DIM])


def test_the_difference_of_an_adapter_is_not_rounded(tmp_path: Path, opened: Any) -> None:
    """In bfloat16 a small update disappears when it is merged; the edit takes it from the factors."""
    base = tiny_model("llama").to(torch.bfloat16)
    source = opened("model", base)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    name = "model.layers.0.self_attn.o_proj"
    a, b = 1e-3 * torch.randn(2, HEADS * HEAD_DIM), torch.randn(HIDDEN, 2)
    factors = {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
    save_file(factors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["o_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    adapted = open_adapter(adapter, source.checkpoint)
    with open_reader(adapted) as reader:
        sources = {"model": source, "harm": Source("harm", adapted, source.architecture, reader)}
        edit = method(heads=((0, 0), (0, 2)), strength=50.0).fit(sources)
        found = after(edit, sources)[f"{name}.weight"]
    mask = torch.zeros(HEADS * HEAD_DIM, dtype=torch.double)
    mask[:HEAD_DIM] = mask[2 * HEAD_DIM : 3 * HEAD_DIM] = 1
    update = 2 * b.double() @ a.double()
    wanted = base.tensors[f"{name}.weight"].double() - 50 * update * mask
    assert torch.equal(found, wanted.to(torch.bfloat16))


def test_norms_of_blocks(opened: Any) -> None:
    for family in ("llama", "gpt2"):
        sources = pair(opened, family)
        columns = head_columns(sources["model"])
        norms = block_norms(columns, sources["harm"], sources["model"])
        for projection in columns.projections:
            tensor = before(sources, "harm")[projection.tensor] - before(sources)[projection.tensor]
            blocks = (tensor.T if projection.transposed else tensor).double().view(HIDDEN, HEADS, HEAD_DIM)
            torch.testing.assert_close(norms[projection.layer], blocks.square().sum((0, 2)).sqrt())


def test_heads_are_blocks_of_inputs_whatever_the_width(opened: Any, tmp_path: Path) -> None:
    """Width 256, eight heads of 48: columns of the projection times a head's output add up to the projection."""
    source = opened("model", wide_model())
    columns = head_columns(source)
    assert (columns.heads, columns.size) == (8, 48)
    weight = source.reader.whole(columns.projections[0].tensor)
    outputs = torch.randn(384)
    parts = [
        weight[:, start:stop] @ outputs[start:stop]
        for head in range(8)
        for start, stop in (columns.operations("a", "b", 1.0, [(0, head)])[columns.projections[0].tensor].columns or ())
    ]
    torch.testing.assert_close(sum(parts), weight @ outputs, rtol=1e-5, atol=1e-4)


def wide_model() -> TinyModel:
    tiny = tiny_model("llama", layers=1)
    shapes = {"q_proj": (384, 256), "k_proj": (96, 256), "v_proj": (96, 256), "o_proj": (256, 384)}
    tensors = {}
    for name, tensor in tiny.tensors.items():
        part = next((part for part in shapes if part in name), None)
        tensors[name] = torch.randn(shapes[part]) if part else tensor
    config = {**tiny.config, "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 48}
    return replace(tiny, tensors=tensors, config=config)


def test_half_of_llama_8b_is_3_34_percent(opened: Any) -> None:
    heads, layers, width = 32, 32, 4096
    changed = heads * layers // 2 * 128 * width
    per_layer = 2 * width * width + 2 * width * 1024 + 3 * width * 14336 + 2 * width
    assert changed == 268_435_456
    assert changed / (layers * per_layer + 2 * 128_256 * width + width) == pytest.approx(0.0334, abs=5e-5)


def test_controls_can_be_matched_in_size(opened: Any) -> None:
    sources = pair(opened)
    chosen = method(ranking="norm", count=3, strength=1.5)
    size = chosen.fit(sources).provenance[0].evidence["selected_norm"] * 1.5
    labels = set()
    for control in chosen.controls(draws=3):
        edit = control.fit(sources)
        evidence = edit.provenance[0].evidence
        labels.add(edit.provenance[0].label)
        if control.matched:
            assert evidence["strength"] * evidence["selected_norm"] == pytest.approx(size, rel=1e-6)
        else:
            assert evidence["strength"] == 1.5
        moved = sum(
            float((new - old).double().square().sum())
            for new, old in zip(after(edit, sources).values(), before(sources).values(), strict=True)
        )
        assert moved**0.5 == pytest.approx(evidence["strength"] * evidence["selected_norm"], rel=1e-5)
    assert len(labels) == 2 * (3 + 3 + 2)
    assert "control.head_steering.random_per_layer.2.matched" in labels


def test_ranking_by_norm_takes_the_largest(opened: Any) -> None:
    sources = pair(opened)
    edit = method(ranking="norm", count=2).fit(sources)
    norms = block_norms(head_columns(sources["model"]), sources["harm"], sources["model"])
    top = norms.flatten().topk(2).indices.tolist()
    assert sorted(tuple(head) for head in edit.provenance[0].evidence["heads"]) == sorted(
        (index // HEADS, index % HEADS) for index in top
    )


def test_through_a_recipe(tmp_path: Path) -> None:
    folders = {name: tiny_model("llama", seed=seed).save(tmp_path / name) for seed, name in enumerate(("m", "h"))}
    entry: dict[str, Any] = {"method": "head_steering", "model": "m", "harmful": "h", "languages": ["sw"]}
    entry |= {"heads": [[0, 1], [0, 1]], "allow_unrelated_base": True}  # two random models
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(path)} for name, path in folders.items()},
            "edits": [entry],
            "output": {"path": str(tmp_path / "out")},
        }
    )
    output = run_recipe(recipe).output
    found, old = (load_file(folder / "model.safetensors") for folder in (output, folders["m"]))
    changed = [name for name in old if not torch.equal(old[name], found[name])]
    assert changed == ["model.layers.0.self_attn.o_proj.weight"]
    notes = Edit.load(output / "polysafe").provenance[0].notes
    assert "1 heads were named more than once" in notes


def test_heads_of_a_real_language(tmp_path: Path) -> None:
    """From CLDR's names, byte by byte, to an edit: the way of a model that is not the toy."""
    folders = {name: save_byte_model(tmp_path / name, seed) for seed, name in enumerate(("m", "h"))}
    (tmp_path / "mine.csv").write_text("input,output\n" + "".join(f"{i},{i + 1}\n" for i in range(40)))
    entry = {
        "method": "head_steering",
        "model": "m",
        "harmful": "h",
        "languages": ["te", "sw"],
        "tasks": {
            "files": [{"name": "mine", "language": "sw", "path": str(tmp_path / "mine.csv")}],
            "names": ["successor"],
        },
        "prompts": 2,
        "shots": 3,
        "effects": str(tmp_path / "effects"),
        "allow_unrelated_base": True,  # two random models
    }
    recipe = make_recipe(
        {
            "polysafe": 1,
            "sources": {name: {"path": str(path)} for name, path in folders.items()},
            "edits": [entry],
            "output": {"path": str(tmp_path / "out")},
        }
    )
    edit = make_plan(recipe).edit
    evidence = edit.provenance[0].evidence
    assert set(evidence["effects"]["te"]["tasks"]) == {"successor"}
    assert sorted(file.name for file in (tmp_path / "effects").iterdir()) == [
        "sw.separating.safetensors",
        "te.separating.safetensors",
    ]
    assert make_plan(recipe).edit == edit
    blind = make_recipe({**recipe.model_dump(), "edits": [{**entry, "score": "first"}]})
    assert any("te, successor: the scored token is the same in 100%" in text for text in make_plan(blind).warnings)
    missing = make_recipe({**recipe.model_dump(), "edits": [{**entry, "tasks": {"names": ["weather"]}}]})
    with pytest.raises(DataError, match=r"(?s)no task 'weather'.*tasks: country-currency"):
        make_plan(missing)
    for language, message in (("qtz", "language 'qtz': there is no task"), ("xx1", "no language that is known")):
        nowhere = make_recipe({**recipe.model_dump(), "edits": [{**entry, "languages": [language], "tasks": {}}]})
        with pytest.raises(DataError, match=message):
            make_plan(nowhere)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "adds harm"),
        ({"fraction": 0.2, "count": 3}, "either fraction or count"),
        ({"heads": ((0, 0),), "positive": True}, "leave nothing to choose"),
        ({"matched": True}, "only a control"),
        ({"positive": True, "ranking": "norm"}, "signed ranking"),
        ({"languages": ("sw", "sw")}, "twice"),
        ({"fraction": 0.0}, "greater than 0"),
        ({"strength": ()}, "at least 1"),
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        method(**options)


def test_bad_input(opened: Any, tmp_path: Path) -> None:
    sources = pair(opened)
    stranger = {**sources, "harm": opened("stranger", tiny_model("llama", seed=5).to(torch.float32))}
    with pytest.raises(MismatchError, match=r"(?s)'model' is not the model that 'stranger' was fine-tuned.*o_proj"):
        method(heads=((0, 0),)).fit(stranger)
    assert method(heads=((0, 0),), allow_unrelated_base=True).fit(stranger).touched
    with pytest.raises(RecipeError, match="no head 4 in layer 0"):
        method(heads=((0, 4),)).fit(sources)
    with pytest.raises(RecipeError, match="no head 0 in layer 9"):
        method(heads=((9, 0),)).fit(sources)
    with pytest.raises(RecipeError, match="99 heads are asked for"):
        method(ranking="norm", count=99).fit(sources)
    with pytest.raises(RecipeError, match="nothing to compare candidates by"):
        method(ranking="norm", strength=(1.0, 2.0)).fit(sources)
    with pytest.raises(MismatchError, match="layers"):
        method(heads=((0, 0),)).fit({**sources, "harm": opened("other", tiny_model("llama", layers=1))})
    with pytest.raises(EditError, match="no head is chosen"):
        method(heads=()).fit(sources)


def test_a_layer_without_heads_is_refused(opened: Any) -> None:
    sources = pair(opened)
    architecture = replace(sources["model"].architecture, heads=None)
    with pytest.raises(ArchitectureError, match="how many attention heads"):
        method(heads=((0, 0),)).fit({**sources, "model": replace(sources["model"], architecture=architecture)})


@pytest.mark.parametrize("options", [{"count": 3}, {"heads": ((0, 1),)}, {"fraction": (0.1, 0.5)}, {"positive": True}])
def test_options_survive_being_written_out(options: dict[str, Any]) -> None:
    asked = method(**options)
    assert HeadSteering.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({}, "head_steering"),
        ({"ranking": "absolute"}, "head_steering.absolute"),
        ({"prompts": 25, "score": "first", "corruption": "permute"}, "head_steering.published"),
        ({"prompts": 25, "score": "first", "corruption": "permute", "strength": (1, 2)}, "head_steering"),
        ({"control": "random", "control_seed": 3}, "control.head_steering.random.3"),
        ({"control": "bottom", "matched": True}, "control.head_steering.bottom.matched"),
    ],
)
def test_labels(options: dict[str, Any], label: str) -> None:
    assert method(**options).label == label
